package hpfeeds_test

import (
	"testing"

	"go.uber.org/goleak"

	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
)

func TestMain(m *testing.M) {
	hpfeedstest.Main()
	goleak.VerifyTestMain(m)
}
