package amqp

// Error is what every failing Publish returns. Its text is for the log and the operator; it holds no password.
type Error struct {
	// Permanent: this mail can never pass, whatever the broker does. Everything else is worth another try, with the same
	// MessageId, because the mail may have been stored all the same.
	Permanent bool
	// Reason is the kind of failure, the value of the label in spamtraps_amqp_failed_total.
	Reason Reason
	// Err says in words what happened, and wraps the cause.
	Err error
}

// Error returns the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause, so that errors.Is finds context.Canceled and the like.
func (e *Error) Unwrap() error { return e.Err }

// Reason is a kind of failure.
type Reason string

// The kinds of failure that there are.
const (
	ReasonTooLarge   Reason = "too_large"   // permanent: larger than the broker's limit
	ReasonInvalid    Reason = "invalid"     // permanent: AMQP cannot carry one of its properties or headers
	ReasonDown       Reason = "down"        // there is no connection, or it went down before the confirm
	ReasonAlarm      Reason = "alarm"       // the broker has a memory or disk alarm
	ReasonRefused    Reason = "refused"     // the broker said no (basic.nack), for one: a queue is full
	ReasonUnroutable Reason = "unroutable"  // no queue is bound for it (basic.return)
	ReasonNoConfirm  Reason = "no_confirm"  // no confirm within CONFIRM_TIMEOUT
	ReasonProbing    Reason = "probing"     // after one of the three above: not its turn
	ReasonGaveUp     Reason = "gave_up"     // the caller's context ended first
	ReasonNotRunning Reason = "not_running" // Run has not started or has ended
)
