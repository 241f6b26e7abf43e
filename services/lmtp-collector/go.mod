module spamtraps.internal/lmtp-collector

go 1.26.0

require (
	github.com/emersion/go-smtp v0.25.1
	github.com/prometheus/client_golang v1.25.0
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/rs/zerolog v1.35.1
	go.uber.org/goleak v1.3.0
	spamtraps.internal/libs v0.0.0
)

replace spamtraps.internal/libs => ../../libs
