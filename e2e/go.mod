module spamtraps.internal/e2e

go 1.26.0

require (
	github.com/rabbitmq/amqp091-go v1.16.0
	spamtraps.internal/libs v0.0.0
)

replace spamtraps.internal/libs => ../libs
