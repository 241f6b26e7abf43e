package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/rig"
)

func TestLookLeavesWhatItSees(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	var all []string
	for i := range 20 {
		id := fmt.Sprint(i)
		all = append(all, id)
		if err := p.Publish(t.Context(), message(id, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	look := func(ctx context.Context, take string, end error) (seen []string, err error) {
		err = Look(ctx, settings(b.URL()), "spam.mails", zerolog.Nop(), func(d *amqp091.Delivery) (bool, error) {
			seen = append(seen, d.MessageId)
			return d.MessageId == take, end
		})
		return seen, err
	}
	slices.Sort(all)
	for range 3 { // the broker gives back what was looked at in an order of its own
		if seen, err := look(t.Context(), "", nil); err != nil || !slices.Equal(slices.Sorted(slices.Values(seen)), all) {
			t.Errorf("saw %v, %v", seen, err)
		}
	}
	if _, err := look(t.Context(), "7", nil); err != nil {
		t.Error(err)
	}
	enough := errors.New("enough")
	if seen, err := look(t.Context(), "", enough); !errors.Is(err, enough) || len(seen) != 1 {
		t.Errorf("saw %v, %v", seen, err)
	}
	if seen, err := look(t.Context(), "", nil); err != nil || len(seen) != 19 || slices.Contains(seen, "7") {
		t.Errorf("saw %v, %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if seen, err := look(ctx, "", nil); err == nil || len(seen) != 0 {
		t.Errorf("saw %v, %v", seen, err)
	}
	err := Look(t.Context(), limited(b, "^$", "^$", "^$"), "spam.mails", zerolog.Nop(), nil)
	if err == nil || !strings.Contains(err.Error(), `lacks the right to read it (403)`) {
		t.Errorf("without rights: %v", err)
	}
}
