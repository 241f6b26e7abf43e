package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// Figures of the benchmarks.
const (
	benchRounds  = 5
	benchMails   = 2_000 // of a round into the maildir
	benchReplays = 100_000
	benchSize    = 10 << 10
	benchShort   = 20_000 // replays, unless CAMPAIGN=full
)

// BenchmarkIntoMaildir prints a table: LMTP into the maildir while there is no broker, against as many bare writers, which make the same
// fsyncs on the same disk and nothing else. Rounds are interleaved; only the shares mean something.
func BenchmarkIntoMaildir(b *testing.B) {
	for b.Loop() {
		for _, writers := range []int{8, 20, 64} {
			benchIntoMaildir(b, writers)
		}
	}
}

// BenchmarkReplay tells how fast spooled mails are replayed, against a bare publisher with the whole window.
func BenchmarkReplay(b *testing.B) {
	for b.Loop() {
		benchReplay(b)
	}
}

// BenchmarkGrowth prints what a mail costs with a thousand files in the maildir, and with more, up to a million.
func BenchmarkGrowth(b *testing.B) {
	for b.Loop() {
		benchGrowth(b, "pending", "undelivered")
		benchGrowth(b, "done", "all")
	}
}

func benchIntoMaildir(b *testing.B, writers int) {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "lmtp")
	env := append(settings("amqp://guest:guest@127.0.0.1:1", socket), "LOG_LEVEL=warn",
		"MAILDIR="+filepath.Join(b.TempDir(), "maildir"), "MAILDIR_KEEP=undelivered")
	collector := launchQuiet(b, env, socket)
	var bare, chain, share []float64
	for range benchRounds {
		bare = append(bare, bareWriters(b, writers))
		chain = append(chain, lmtpRate(b, socket, writers, benchMails))
		share = append(share, chain[len(chain)-1]/bare[len(bare)-1])
	}
	peak := collector.peakRSS(b)
	collector.kill(b)
	fmt.Printf("\nLMTP into the maildir, no broker, %d sessions, %d mails of %d bytes, %d rounds, median (range)\n", writers, benchMails, benchSize, benchRounds)
	benchRow("bare writers, mails/s", bare, "%.0f")
	benchRow("collector, mails/s", chain, "%.0f")
	benchRow("share", share, "%.2f")
	fmt.Printf("  %-28s %d MiB\n", "collector, peak RSS", peak>>20)
}

// lmtpRate delivers mails over so many sessions and returns mails a second.
func lmtpRate(b *testing.B, socket string, sessions, mails int) float64 {
	b.Helper()
	body := append(make([]byte, benchSize-2), "\r\n"...)
	return rate(b, sessions, mails, func() (func() error, func()) {
		c, err := hello(socket)
		if err != nil {
			b.Error(err)
			return func() error { return err }, func() {}
		}
		return func() error {
			replies, err := c.Deliver("a@x.example", []string{"b@y.example"}, body)
			if err == nil && !strings.HasPrefix(replies[0], "250 ") {
				err = fmt.Errorf("got %s", replies[0])
			}
			return err
		}, func() { _ = c.Close() }
	})
}

// bareWriters writes what a maildir writes for each mail, with the same fsyncs, and returns mails a second.
func bareWriters(b *testing.B, writers int) float64 {
	b.Helper()
	dir := b.TempDir()
	mails, envelopes := filepath.Join(dir, "new"), filepath.Join(dir, "pending")
	for _, folder := range []string{mails, envelopes} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			b.Fatal(err)
		}
	}
	body, envelope := make([]byte, benchSize), make([]byte, 1000)
	var mu sync.Mutex
	number := 0
	return rate(b, writers, benchMails, func() (func() error, func()) {
		return func() error {
			mu.Lock()
			number++
			name := fmt.Sprint(number)
			mu.Unlock()
			for _, file := range []struct {
				folder string
				data   []byte
			}{{envelopes, envelope}, {mails, body}} {
				if err := bareWrite(dir, file.folder, name, file.data); err != nil {
					return err
				}
			}
			return nil
		}, func() {}
	})
}

func bareWrite(tmp, folder, name string, data []byte) error {
	path := filepath.Join(tmp, filepath.Base(folder)+name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(folder, name)); err != nil {
		return err
	}
	directory, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer func() { _ = directory.Close() }()
	return directory.Sync()
}

// rate has workers do count things together, and returns things a second. begin is called once for each worker.
func rate(b *testing.B, workers, count int, begin func() (do func() error, end func())) float64 {
	b.Helper()
	tickets := make(chan struct{}, count)
	for range count {
		tickets <- struct{}{}
	}
	close(tickets)
	var all sync.WaitGroup
	from := time.Now()
	for range workers {
		do, end := begin()
		all.Go(func() {
			defer end()
			for range tickets {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(count) / time.Since(from).Seconds()
}

func benchReplay(b *testing.B) {
	b.Helper()
	broker := rig.OwnBroker(b)
	url := broker.URLAt(broker.Address()) // as directly as the bare publisher
	socket := filepath.Join(b.TempDir(), "lmtp")
	mails := campaign(benchShort, benchReplays)
	path := filepath.Join(b.TempDir(), "maildir")
	disk := []string{"MAILDIR=" + path, "MAILDIR_KEEP=undelivered", "LOG_LEVEL=warn"}
	spooling := launchQuiet(b, append(settings(nowhere, socket), disk...), socket)
	lmtpRate(b, socket, 64, mails)
	spooling.kill(b)
	before := barePublisher(b, url, mails)
	collector := launch(b, append(settings(url, socket), append(disk, "LOG_LEVEL=info")...))
	collector.awaitConnected(b)
	from := time.Now()
	rig.Eventually(b, 9*time.Minute, "everything is replayed", func() bool {
		return collector.log.metric(b, "spamtraps_spool_replayed_total") >= float64(mails)
	})
	replay := float64(mails) / time.Since(from).Seconds()
	peak := collector.peakRSS(b)
	left := time.Now()
	rig.Eventually(b, 9*time.Minute, "all files are deleted", func() bool {
		left, err := os.ReadDir(filepath.Join(path, "gone"))
		return err == nil && len(left) == 0
	})
	deleted := time.Since(left)
	collector.kill(b)
	after := barePublisher(b, url, mails)
	bare := (before + after) / 2
	fmt.Printf("\nReplay of %d spooled mails of %d bytes\n  bare publisher before %.0f/s and after %.0f/s, replay %.0f/s: share %.2f; collector, peak RSS %d MiB; the last files are deleted %s later\n",
		mails, benchSize, before, after, replay, replay/bare, peak>>20, deleted.Round(time.Second))
}

// benchGrowth measures how fast mail goes into a maildir that holds many already, as what waits or as copies: the same collector code, a
// maildir of each size, in turn.
func benchGrowth(b *testing.B, folder, keep string) {
	b.Helper()
	type size struct {
		files       int
		path        string
		serve, rate []float64
		peak        int
	}
	var sizes []*size
	for _, files := range []int{1_000, 10_000, 100_000, 1_000_000} {
		s := &size{files: files, path: filepath.Join(b.TempDir(), "maildir")}
		fill(b, s.path, folder, files)
		sizes = append(sizes, s)
	}
	for range benchRounds {
		for _, s := range sizes {
			socket := filepath.Join(b.TempDir(), "lmtp")
			env := append(settings(nowhere, socket), "LOG_LEVEL=warn", "MAILDIR="+s.path, "MAILDIR_KEEP="+keep)
			from := time.Now()
			collector := launchQuiet(b, env, socket)
			s.serve = append(s.serve, time.Since(from).Seconds()*1000)
			s.rate = append(s.rate, lmtpRate(b, socket, 20, benchMails))
			s.peak = max(s.peak, collector.peakRSS(b))
			collector.kill(b)
		}
	}
	fmt.Printf("\nLMTP into a maildir with many mails in %s/, no broker, 20 sessions, %d mails of %d bytes, %d rounds\n", folder, benchMails, benchSize, benchRounds)
	for _, s := range sizes {
		share := make([]float64, benchRounds)
		for i := range share {
			share[i] = s.rate[i] / sizes[0].rate[i]
		}
		benchRow(fmt.Sprintf("%d, ms until it serves", s.files), s.serve, "%.0f")
		benchRow(fmt.Sprintf("%d, mails/s", s.files), s.rate, "%.0f")
		benchRow(fmt.Sprintf("%d, share of 1000", s.files), share, "%.2f")
		fmt.Printf("  %-28s %d MiB\n", fmt.Sprintf("%d, peak RSS", s.files), s.peak>>20)
	}
}

// launchQuiet starts the program and returns when it takes mail, whatever it logs.
func launchQuiet(b *testing.B, env []string, socket string) *process {
	b.Helper()
	p := &process{cmd: exec.CommandContext(context.Background(), program), log: new(console)}
	p.cmd.Env, p.cmd.Stderr = env, p.log
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.cmd.Process.Kill() })
	rig.Eventually(b, 30*time.Second, "the collector takes mail", func() bool { return takesMail(socket) })
	return p
}

// fill makes a maildir with small mails and their envelopes in a folder, as the collector names them. Many names share a file, or making and
// deleting millions of files would take longer than all else.
func fill(b *testing.B, path, folder string, files int) {
	b.Helper()
	const (
		perBucket = 10_000
		perFile   = 50_000 // ext4 gives a file 65,000 names
	)
	for _, name := range []string{"tmp", "new", "cur", "pending", "done", "aside"} {
		if err := os.MkdirAll(filepath.Join(path, name), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	body := []byte("Subject: s\r\n\r\n")
	sum := sha256.Sum256(body)
	e := envelope.Envelope{
		MessageID: envelope.LMTPMessageID("", "x", "a@x.example", []string{"b@y.example"}), App: "lmtp-collector/1", SHA256: hex.EncodeToString(sum[:]),
		Size: int64(len(body)), ReceivedAt: time.Unix(1_700_000_000, 0), LMTP: &envelope.LMTP{MailFrom: "a@x.example", RcptTo: []string{"b@y.example"}},
	}
	message, err := e.Publishing(body)
	if err != nil {
		b.Fatal(err)
	}
	record, err := json.Marshal(map[string]any{
		"version": 1, "message_id": message.MessageId, "app_id": message.AppId, "timestamp": message.Timestamp, "headers": message.Headers,
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := range files {
		bucket := filepath.Join(path, folder, time.Unix(int64(1_700_000_000+i/perBucket), 0).UTC().Format("20060102T150405.000000")+fmt.Sprintf("-%016x", i/perBucket))
		if i%perBucket == 0 {
			if err := os.Mkdir(bucket, 0o700); err != nil {
				b.Fatal(err)
			}
		}
		mail, envelope := filepath.Join(path, fmt.Sprintf("mail-%d", i/perFile)), filepath.Join(path, fmt.Sprintf("envelope-%d", i/perFile))
		if i%perFile == 0 {
			if err := errors.Join(os.WriteFile(mail, body, 0o600), os.WriteFile(envelope, record, 0o600)); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("%010d.M%06dP1R%016x.host,S=%d", 1_700_000_000+i/perBucket, i%perBucket, i, len(body))
		if err := errors.Join(os.Link(mail, filepath.Join(path, "new", name)), os.Link(envelope, filepath.Join(bucket, name+".json"))); err != nil {
			b.Fatal(err)
		}
	}
}

// barePublisher publishes with nothing but amqp091, confirmed and mandatory, a window in flight, and returns mails a second.
func barePublisher(b *testing.B, url string, mails int) float64 {
	b.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		b.Fatal(err)
	}
	queue, err := channel.QueueDeclare("bare", true, false, false, false, amqp091.Table{"x-queue-type": "quorum"})
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, benchSize)
	pending := make(chan *amqp091.DeferredConfirmation, window)
	done := make(chan struct{})
	from := time.Now()
	go func() {
		defer close(done)
		for range mails {
			if ok, err := (<-pending).WaitContext(b.Context()); err != nil || !ok {
				b.Errorf("a bare publish was not confirmed: %v", err)
			}
		}
	}()
	for range mails {
		confirm, err := channel.PublishWithDeferredConfirmWithContext(b.Context(), "", queue.Name, true, false,
			amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body})
		if err != nil {
			b.Fatal(err)
		}
		pending <- confirm
	}
	<-done
	took := time.Since(from)
	if _, err := channel.QueueDelete(queue.Name, false, false, false); err != nil {
		b.Fatal(err)
	}
	return float64(mails) / took.Seconds()
}

func benchRow(what string, values []float64, format string) {
	sorted := slices.Sorted(slices.Values(values))
	fmt.Printf("  %-28s "+format+" ("+format+" to "+format+")\n", what, sorted[len(sorted)/2], sorted[0], sorted[len(sorted)-1])
}
