package amqp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// wireTo returns a wire whose other end is in the test's hands.
func wireTo(silence time.Duration) (*wire, net.Conn) {
	near, far := net.Pipe()
	link := newLink(near, silence)
	return newWire(link, link, nil), far
}

func TestWireGathersUpToItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far := wireTo(time.Hour)
		piece := make([]byte, 64<<10)
		written := make(chan int, 1)
		go func() {
			n := 0
			for {
				if _, err := w.Write(piece); err != nil {
					written <- n
					return
				}
				n += len(piece)
			}
		}()
		synctest.Wait() // the sender waits for the reader, and the writer for the sender
		w.mu.Lock()
		gathered := len(w.gathered)
		w.mu.Unlock()
		if gathered < gatherLimit || gathered >= gatherLimit+len(piece) {
			t.Errorf("%d bytes have gathered", gathered)
		}
		w.cut(net.ErrClosed)
		if n := <-written; n > 2*(gatherLimit+len(piece)) { // what has gathered, and what is being sent
			t.Errorf("%d bytes were taken", n)
		}
		_ = far.Close()
		<-w.sent
	})
}

func TestWireSendsInOrderAndFlushesOnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far := wireTo(time.Hour)
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(far)
			got <- all
		}()
		var want bytes.Buffer
		for i := range 1000 {
			piece := bytes.Repeat([]byte{byte(i)}, i)
			want.Write(piece)
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Close()
		if all := <-got; !bytes.Equal(all, want.Bytes()) {
			t.Errorf("%d bytes arrived, other than the %d that were sent", len(all), want.Len())
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("a closed wire takes bytes")
		}
	})
}

func TestWireCloseDoesNotWaitForADeadPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far := wireTo(time.Hour)
		_, _ = w.Write([]byte("never read"))
		begun := time.Now()
		_ = w.Close()
		if took := time.Since(begun); took != flushLimit {
			t.Errorf("it took %v", took)
		}
		<-w.sent
		_ = far.Close()
	})
}

func TestFirstErrorSticks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far := wireTo(time.Hour)
		first := errors.New("first")
		w.cut(first)
		w.cut(errors.New("second"))
		_, written := w.Write([]byte("x"))
		_, read := w.Read(make([]byte, 1))
		if !errors.Is(written, first) || !errors.Is(read, first) {
			t.Errorf("Write: %v, Read: %v", written, read)
		}
		<-w.sent
		_ = far.Close()
	})
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, far := wireTo(15 * time.Second)
		defer func() { _ = far.Close() }()
		begun := time.Now()
		_, err := w.Read(make([]byte, 1))
		if err == nil || err.Error() != "nothing heard for 15s" || time.Since(begun) != 15*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("the wire still takes bytes")
		}
		<-w.sent
	})
}

// A peer that is slow but takes something now and then is waited for; one that takes nothing is not.
func TestPeerThatTakesNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		link := newLink(near, 10*time.Second)
		done := make(chan error, 1)
		begun := time.Now()
		go func() {
			_, err := link.Write(make([]byte, 100))
			done <- err
		}()
		for range 5 {
			time.Sleep(9 * time.Second)
			_, _ = far.Read(make([]byte, 10))
		}
		err := <-done
		var silent *silentError
		if !errors.As(err, &silent) || silent.doing != "taken" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took < 45*time.Second || took > 65*time.Second {
			t.Errorf("given up after %v", took)
		}
		_ = far.Close()
	})
}

// A broker with an alarm has said that it will not read: that is no reason to give it up.
func TestPatienceWithAPeerThatSaidSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		link := newLink(near, 10*time.Second)
		link.patient.Store(true)
		done := make(chan error, 1)
		go func() {
			_, err := link.Write(make([]byte, 100))
			done <- err
		}()
		time.Sleep(time.Hour)
		if _, err := io.ReadFull(far, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = far.Close()
	})
}
