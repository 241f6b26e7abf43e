package daemon

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
)

// serve runs the service from its first log line to its last.
func (prog *program[C]) serve(line commandLine) int {
	return prog.configured(line, func() int {
		signals, release := prog.p.signals()
		defer release()
		log := newLogger(prog.p.Stderr, prog.common, prog.svc.Name)
		log.Info().Str("version", Version()).Dict("settings", shownSettings(prog.loader.sections)).Msg("starting")
		d, err := newDaemon(prog.svc.Name, prog.common, log)
		if err != nil {
			log.Error().Err(err).Msg("cannot start")
			return ExitFailed
		}
		prog.sayWhoTakesHpfeeds(log)
		code := prog.run(d, signals)
		log.Info().Int("exit_code", code).Msg("stopped")
		return code
	})
}

// newDaemon listens for the probes before anything of the service is started, so that /livez answers early.
func newDaemon(name string, common *Common, log zerolog.Logger) (*Daemon, error) {
	ready := newReadiness()
	d := &Daemon{Name: name, Version: Version(), Log: log, Metrics: newMetrics(name, ready), group: newGroup(log), ready: ready}
	d.page = &statusPage{service: name, sensor: common.Sensor, started: time.Now(), ready: ready, metrics: d.Metrics, log: log}
	listening, err := newAdmin(context.Background(), common.AdminAddr, d.ready, d.Metrics, d.page, log)
	if err != nil {
		return nil, err
	}
	d.admin = listening
	d.Go("admin", d.admin.run)
	log.Info().Str("addr", d.AdminAddr()).Msg("listening")
	return d, nil
}

// run starts the service's parts, waits for a reason to stop, and stops them.
func (prog *program[C]) run(d *Daemon, signals <-chan os.Signal) int {
	start := d.group.launch("start", func(ctx context.Context) error { return prog.svc.Run(ctx, d, prog.cfg) }, nil)
	d.awaitStop(start, signals)
	d.ready.enter(stopping)
	return d.group.stop(start, shutdown{timeout: prog.common.ShutdownTimeout, signals: signals})
}

// awaitStop returns when there is a reason to stop, and opens /readyz when the start is done before that.
func (d *Daemon) awaitStop(start *part, signals <-chan os.Signal) {
	started := start.done
	for {
		select {
		case <-started:
			if start.err != nil {
				return
			}
			started = nil
			d.ready.enter(running)
			d.Log.Info().Msg("started")
		case p := <-d.group.ended:
			d.Log.Info().Str("part", p.name).Msg("a part has ended, stopping")
			return
		case sig := <-signals:
			d.Log.Info().Stringer("signal", sig).Msg("stopping")
			return
		}
	}
}

// sayWhoTakesHpfeeds helps those who come with the Python package's feed file, where a collector could feed hpfeeds itself.
func (prog *program[C]) sayWhoTakesHpfeeds(log zerolog.Logger) {
	if prog.common.Type != "hpfeeds" || prog.loader.hasSection("HPFEEDS") {
		return
	}
	log.Info().Msg("the feed file says type: hpfeeds, but collectors always publish to AMQP: hpfeeds-bridge takes the hpfeeds section")
}

func newMetrics(name string, ready *readiness) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newBuildInfo(name), newReady(ready), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

func newBuildInfo(name string) prometheus.Gauge {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "spamtraps_build_info",
		Help:        "Always 1; the labels say which service this is, its version and the Go version that built it.",
		ConstLabels: prometheus.Labels{"service": name, "version": Version(), "go_version": runtime.Version()},
	})
	build.Set(1)
	return build
}

func newReady(ready *readiness) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spamtraps_ready", Help: "Whether /readyz says that the service can do its work (1) or not (0).",
	}, func() float64 {
		if ok, _ := ready.lines(); ok {
			return 1
		}
		return 0
	})
}
