// Consumer prints a line of JSON for each mail: AMQP_URL=amqp://reader:PASSWORD@HOST:5672 consumer QUEUE
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/rabbitmq/amqp091-go"
)

func main() {
	queue, seen := os.Args[1], map[string]bool{}
	connection, err := amqp091.Dial(os.Getenv("AMQP_URL"))
	check(err)
	channel, err := connection.Channel()
	check(err)
	check(channel.Qos(16, 0, false))
	_, err = channel.QueueDeclare(queue, true, false, false, false,
		amqp091.Table{"x-queue-type": "quorum", "x-max-length-bytes": 1 << 30})
	check(err)
	check(channel.QueueBind(queue, "spam.mails", "spam", false, nil))
	deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
	check(err)
	fmt.Fprintln(os.Stderr, "waiting for mail in", queue)
	for d := range deliveries {
		if d.Headers["contract"] != int64(1) {
			check(errors.New("a message of a contract that is not known here; it stays in the queue"))
		}
		if !seen[d.MessageId] {
			sum := sha256.Sum256(d.Body)
			mail := map[string]any{"message_id": d.MessageId, "intact": hex.EncodeToString(sum[:]) == d.Headers["sha256"]}
			mail["mail_from"] = plain(d.Headers, "mail_from", d.Headers["mail_from"])
			recipients := []string{}
			list, _ := d.Headers["rcpt_to"].([]any)
			for _, text := range list {
				recipients = append(recipients, plain(d.Headers, "rcpt_to", text))
			}
			mail["rcpt_to"] = recipients
			check(json.NewEncoder(os.Stdout).Encode(mail))
			seen[d.MessageId] = true
		}
		check(d.Ack(false)) // only now: until here the broker holds the mail for us
	}
	check(errors.New("the broker closed the channel"))
}

// plain returns one text of the header called name. What was not valid UTF-8 comes in base64.
func plain(headers amqp091.Table, name string, value any) string {
	text, _ := value.(string)
	encoded, _ := headers["base64"].([]any)
	if !slices.Contains(encoded, any(name)) {
		return text
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	check(err)
	return string(raw)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
