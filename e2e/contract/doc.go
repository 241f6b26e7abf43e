// Package contract tests what docs/contract.md promises to consumers: its tables against the messages that libs/envelope
// makes, and its two programs against a real broker.
package contract
