module spamtraps.internal/imap-collector

go 1.26.0

require (
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6
	github.com/rs/zerolog v1.35.1
	spamtraps.internal/libs v0.0.0
)

require (
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.22 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace spamtraps.internal/libs => ../../libs
