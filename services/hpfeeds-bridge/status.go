package main

import (
	"spamtraps.internal/hpfeeds-bridge/internal/bridge"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
)

// statusOf is what the status page shows: both ends, and what flows between them.
func statusOf(consumer *amqp.Consumer, morgue *amqp.Publisher, b *bridge.Bridge) daemon.Status {
	ends := daemon.Table{
		Title:   "Connections",
		Columns: []daemon.Column{{Key: "end", Title: "End"}, {Key: "state", Title: "State"}, {Key: "since", Title: "Since"}, {Key: "text", Title: "In words"}},
	}
	add := func(end string, ok bool, state amqp.State) {
		word := "working"
		if !ok {
			word = "not working"
		}
		ends.Rows = append(ends.Rows, []daemon.Cell{{Value: end}, {Value: word, Bad: !ok}, {Value: state.Since}, {Value: state.Text}})
	}
	from, dead := consumer.State(), morgue.State()
	ok, text := b.Health()
	add("RabbitMQ, the queue", from.OK, from)
	add("RabbitMQ, dead letters", dead.OK, dead)
	add("hpfeeds", ok, amqp.State{Since: b.Since(), Text: text})
	return daemon.Status{
		Facts: []daemon.Fact{
			{Name: "Waiting in the queue", Metric: "spamtraps_amqp_queue_messages"},
			{Name: "Held, not yet acknowledged", Metric: "spamtraps_amqp_unacked"},
			{Name: "Published", Metric: "spamtraps_bridge_published_total"},
			{Name: "Confirmed", Metric: "spamtraps_bridge_confirmed_total"},
			{Name: "Given back", Metric: "spamtraps_bridge_unconfirmed_total"},
			{Name: "Dead letters", Metric: "spamtraps_bridge_dead_lettered_total"},
			{Name: "Dropped", Metric: "spamtraps_bridge_dropped_total"},
			{Name: "Failures of hpfeeds", Metric: "spamtraps_bridge_failures_total"},
		},
		Tables: []daemon.Table{ends},
	}
}
