package hpfeeds

// Refusal is what an ERROR frame means, for the tests.
func Refusal(text []byte) *Error { return refusal(text) }
