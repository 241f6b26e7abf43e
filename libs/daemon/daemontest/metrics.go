// Package daemontest holds what the tests of every service ask of it.
package daemontest

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"spamtraps.internal/libs/daemon"
)

// LintMetrics has promlint look at all families of a service, and refuses labels that could carry an address.
func LintMetrics[C any](t *testing.T, service daemon.Service[C]) {
	t.Helper()
	families, err := daemon.Families(service)
	if err != nil {
		t.Fatal(err)
	}
	var all []*dto.MetricFamily
	for _, f := range families {
		metric := &dto.Metric{}
		for _, label := range f.Labels {
			metric.Label = append(metric.Label, &dto.LabelPair{Name: new(label), Value: new("")})
			if slices.Contains([]string{"recipient", "rcpt", "rcpt_to", "mail_from", "sender", "address", "peer", "client"}, label) {
				t.Errorf("%s has the label %s", f.Name, label)
			}
		}
		all = append(all, &dto.MetricFamily{Name: new(f.Name), Help: new(f.Help), Type: new(f.Type), Metric: []*dto.Metric{metric}})
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Documented checks that all metrics of ours on a page of /metrics are among the families that the service documents.
func Documented[C any](t *testing.T, service daemon.Service[C], page string) {
	t.Helper()
	families, err := daemon.Families(service)
	if err != nil {
		t.Fatal(err)
	}
	var found int
	for line := range strings.Lines(page) {
		name, isHelp := strings.CutPrefix(line, "# HELP ")
		name, _, _ = strings.Cut(name, " ")
		if !isHelp || !strings.HasPrefix(name, "spamtraps_") {
			continue
		}
		found++
		if !slices.ContainsFunc(families, func(f daemon.Family) bool { return f.Name == name }) {
			t.Errorf("/metrics shows %s, and docs/monitoring.md does not: register it where Service.Metrics does", name)
		}
	}
	if found < 2 {
		t.Errorf("/metrics shows %d metrics of ours", found)
	}
}
