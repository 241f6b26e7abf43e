package main

import (
	"testing"

	"spamtraps.internal/libs/daemon/daemontest"
)

func TestMetrics(t *testing.T) { daemontest.LintMetrics(t, service()) }
