package lmtp_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

// securely returns settings for STARTTLS, and a client's for it; with a client certificate on both sides if that is wanted.
func securely(t *testing.T, mutual bool) (func(*lmtp.Config), *tls.Config) {
	t.Helper()
	ca := rig.NewCA(t)
	cert, key := ca.Issue(time.Now().Add(time.Hour), "collector.example")
	raw, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "collector.example", MinVersion: tls.VersionTLS12}
	client.RootCAs.AppendCertsFromPEM(raw)
	authorities := ""
	if mutual {
		authorities = ca.File
		cert, key := ca.Issue(time.Now().Add(time.Hour), "mta.example")
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		client.Certificates = []tls.Certificate{pair}
	}
	return func(cfg *lmtp.Config) {
		cfg.TLSCertFile, cfg.TLSKeyFile, cfg.TLSClientCAFile = cert, key, authorities
	}, client
}

func TestMailThroughTLS(t *testing.T) {
	change, config := securely(t, true)
	var taker memory
	c := start(t, &taker, change).dial(t)
	if offer := c.say("LHLO mta.example\r\n", "250"); !strings.Contains(offer, "250-STARTTLS\n") {
		t.Errorf("STARTTLS is not offered: %q", offer)
	}
	c.say("MAIL FROM:<a@x>\r\n", "451 4.7.0")
	c.say("STARTTLS now\r\n", "501")
	if err := c.Secure(config); err != nil {
		t.Fatal(err)
	}
	c.say("MAIL FROM:<a@x>\r\n", "503 5.5.1") // what was said before does not count
	if offer := c.say("LHLO secure.example\r\n", "250"); strings.Contains(offer, "STARTTLS") {
		t.Errorf("STARTTLS is offered again: %q", offer)
	}
	c.say("STARTTLS\r\n", "503")
	c.say(simple+"x\r\n.\r\n", "250", "250", "354", "250")
	if got := taker.last(t); got.LMTP.LHLO != "secure.example" {
		t.Errorf("the envelope says %q", got.LMTP.LHLO)
	}
}

// What somebody on the way put behind STARTTLS is no command (CVE-2011-0411).
func TestCommandsBehindSTARTTLS(t *testing.T) {
	change, _ := securely(t, false)
	var taker memory
	r := start(t, &taker, change)
	c := r.hello(t)
	c.say("STARTTLS\r\n"+simple+".\r\n", "501 5.5.4")
	if reply, err := c.Reply(); err == nil {
		t.Errorf("the session goes on: %q", reply)
	}
	if len(taker.taken()) != 0 {
		t.Error("a mail was taken")
	}
}

func TestClientWithoutCertificate(t *testing.T) {
	change, config := securely(t, true)
	config.Certificates = nil
	r := start(t, &memory{}, change)
	c := r.hello(t)
	err := c.Secure(config)
	if err == nil { // with TLS 1.3 the refusal comes with the first read
		_, err = c.Ask("LHLO mta.example")
	}
	if refused, ok := errors.AsType[*lmtptest.RefusedError](err); err == nil || ok {
		t.Fatalf("got %v, %v", err, refused)
	}
	rig.Eventually(t, 10*time.Second, "the log tells", func() bool { return strings.Contains(r.log.String(), "a peer could not secure its connection") })
}

func TestConnectionsPerPeer(t *testing.T) {
	r := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.MaxPerPeer = 2 })
	first, _ := r.hello(t), r.hello(t)
	if _, err := lmtptest.Dial(r.network, r.address); err == nil || !strings.Contains(err.Error(), "421 4.3.2") {
		t.Errorf("a third connection: %v", err)
	}
	first.say("QUIT\r\n", "221")
	rig.Eventually(t, 10*time.Second, "its place is free", func() bool { return r.counted(t, "spamtraps_lmtp_open_connections") < 2 })
	r.hello(t)
}

// While all memory is taken by mails that are half here, small ones pass, and a large one is told to come again before it is
// sent.
func TestMemoryIsUsedUp(t *testing.T) {
	const limit = 1 << 20
	var taker memory
	r := start(t, &taker, func(cfg *lmtp.Config) { cfg.Memory, cfg.MaxMessageBytes, cfg.MaxConnections = 2*limit, limit, 4 })
	const large = "MAIL FROM:<a@x> SIZE=700000\r\nRCPT TO:<b@y>\r\nDATA\r\n"
	first, second := r.hello(t), r.hello(t) // one takes the pool, one is the one beyond it
	first.say(large, "250", "250", "354")
	second.say(large, "250", "250", "354")
	r.hello(t).say(simple+"x\r\n.\r\n", "250", "250", "354", "250")
	late := r.hello(t)
	late.say(large, "250", "250", "452 4.3.1")
	if n := r.counted(t, "spamtraps_lmtp_deferred_total", "memory"); n != 1 {
		t.Errorf("%v mails were deferred for want of memory", n)
	}
	first.say("x\r\n.\r\n", "250")
	second.say("x\r\n.\r\n", "250")
	late.say("RSET\r\n"+large+"x\r\n.\r\n", "250", "250", "250", "354", "250")
}
