package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// testDoor returns an open door for 1,000 bytes whose pauses are as long as they may be.
func testDoor(count int) *door {
	d := newDoor(count, 1000, time.Now, func(longest time.Duration) time.Duration { return longest })
	d.open(&session{})
	return d
}

func mustEnter(t *testing.T, d *door, size int64) *pass {
	t.Helper()
	p, err := d.enter(t.Context(), size)
	if err != nil {
		t.Fatalf("enter: %v", err)
	}
	return p
}

// arrival is what became of someone who had to wait.
type arrival struct {
	pass *pass
	err  error
}

func enterLater(ctx context.Context, d *door, size int64) <-chan arrival {
	out := make(chan arrival, 1)
	go func() {
		p, err := d.enter(ctx, size)
		out <- arrival{p, err}
	}()
	return out
}

func waiting(out <-chan arrival) bool {
	synctest.Wait()
	select {
	case <-out:
		return false
	default:
		return true
	}
}

func TestWindowIsBoundedByCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(2)
		first := mustEnter(t, d, 1)
		mustEnter(t, d, 1)
		third := enterLater(t.Context(), d, 1)
		if !waiting(third) {
			t.Fatal("a third was let in")
		}
		d.leave(first)
		if a := <-third; a.err != nil {
			t.Fatal(a.err)
		}
	})
}

func TestWindowIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		first := mustEnter(t, d, 600)
		second := enterLater(t.Context(), d, 600)
		if !waiting(second) {
			t.Fatal("1,200 bytes of 1,000 were let in")
		}
		d.leave(first)
		if a := <-second; a.err != nil {
			t.Fatal(a.err)
		}
	})
}

func TestMessageOverTheWholeBudgetGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		small := mustEnter(t, d, 1)
		large := enterLater(t.Context(), d, 5000)
		if !waiting(large) {
			t.Fatal("it was let in beside another")
		}
		d.leave(small)
		alone := <-large
		if alone.err != nil {
			t.Fatal(alone.err)
		}
		after := enterLater(t.Context(), d, 1)
		if !waiting(after) {
			t.Fatal("another was let in beside it")
		}
		d.leave(alone.pass)
		if a := <-after; a.err != nil {
			t.Fatal(a.err)
		}
	})
}

func TestLargeMessageIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		first := mustEnter(t, d, 500)
		large := enterLater(t.Context(), d, 900)
		synctest.Wait()
		small := enterLater(t.Context(), d, 10) // would fit beside the first
		if !waiting(small) {
			t.Fatal("the small one went first")
		}
		d.leave(first)
		if a := <-large; a.err != nil {
			t.Fatal(a.err)
		}
		if a := <-small; a.err != nil {
			t.Fatal(a.err)
		}
	})
}

func TestCallerThatGivesUpLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		mustEnter(t, d, 500)
		ctx, cancel := context.WithCancel(t.Context())
		large := enterLater(ctx, d, 900)
		synctest.Wait()
		small := enterLater(t.Context(), d, 10)
		synctest.Wait()
		cancel()
		if a := <-large; !errors.Is(a.err, context.Canceled) || reason(a.err) != ReasonGaveUp {
			t.Fatalf("the one that gave up got %v", a.err)
		}
		if a := <-small; a.err != nil {
			t.Fatal(a.err)
		}
		if count, bytes := d.load(); count != 2 || bytes != 510 {
			t.Fatalf("%d messages and %d bytes are in flight", count, bytes)
		}
	})
}

func TestShutDoorRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(1)
		inside := mustEnter(t, d, 1)
		waits := enterLater(t.Context(), d, 1)
		synctest.Wait()
		d.close(trouble{what: "cannot reach rabbitmq:5672", why: "connection refused", reason: ReasonDown})
		if a := <-waits; reason(a.err) != ReasonDown {
			t.Fatalf("the waiting one got %v", a.err)
		}
		<-inside.halted
		if reason(inside.cause) != ReasonDown {
			t.Fatalf("what was in flight got %v", inside.cause)
		}
		time.Sleep(12 * time.Second)
		_, err := d.enter(t.Context(), 1)
		if want := "amqp: cannot reach rabbitmq:5672 for 12 s: connection refused"; err == nil || err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
	})
}

func TestDoubtLetsOneTryOutAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		nacked, other := mustEnter(t, d, 1), mustEnter(t, d, 1)
		d.doubts(trouble{what: "refused", reason: ReasonRefused}, longestProbe)
		d.leave(nacked)
		time.Sleep(time.Hour)
		if d.ready() == nil {
			t.Fatal("a try went out before all that was outside had been resolved")
		}
		d.leave(other)
		for _, pause := range []time.Duration{firstProbe, 2 * firstProbe, 4 * firstProbe} {
			time.Sleep(pause - time.Millisecond)
			if d.ready() == nil {
				t.Fatalf("a try went out before its pause of %v was over", pause)
			}
			time.Sleep(time.Millisecond)
			try := mustEnter(t, d, 1)
			if !try.probe {
				t.Fatal("the try is not marked as one")
			}
			if _, err := d.enter(t.Context(), 1); reason(err) != ReasonProbing {
				t.Fatalf("a second try beside the first: %v", err)
			}
			d.doubts(trouble{what: "refused", reason: ReasonRefused}, longestProbe)
			d.leave(try)
		}
		time.Sleep(longestProbe)
		try := mustEnter(t, d, 1)
		if _, had := d.trusts(); !had {
			t.Fatal("there was no doubt")
		}
		mustEnter(t, d, 1)
		d.leave(try)
		if err := d.ready(); err != nil {
			t.Fatalf("after a try has passed: %v", err)
		}
	})
}

func TestLateConfirmOfOldMessageDoesNotEndDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		nacked, other := mustEnter(t, d, 1), mustEnter(t, d, 1)
		d.doubts(trouble{what: "refused", reason: ReasonRefused}, longestProbe)
		d.leave(nacked)
		if other.probe {
			t.Fatal("a message from before the doubt counts as a try")
		}
		d.leave(other)
		if d.ready() == nil {
			t.Fatal("no doubt is left")
		}
	})
}

func TestOnlyOverdueConfirmsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		late, other := mustEnter(t, d, 1), mustEnter(t, d, 1)
		if d.missed(late) {
			t.Fatal("the session would be ended while a confirm may still come")
		}
		if !d.leave(other) {
			t.Fatal("the session would wait for an overdue confirm for ever")
		}
	})
}

func TestSessionLostDuringAnAlarmLeavesADoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		d.close(trouble{what: "the broker has an alarm", why: "low on memory", reason: ReasonAlarm})
		d.close(trouble{what: "lost the connection", reason: ReasonDown})
		d.open(&session{})
		try := mustEnter(t, d, 1)
		if _, err := d.enter(t.Context(), 1); reason(err) != ReasonProbing {
			t.Fatalf("a whole window would be published into the alarm: %v", err)
		}
		d.trusts()
		d.leave(try)
		mustEnter(t, d, 1)
	})
}

// An end of an alarm that never began must not part what is in flight from the session's end.
func TestOpeningAnOpenDoorChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		inside := mustEnter(t, d, 1)
		d.open(&session{})
		d.close(trouble{what: "lost the connection", reason: ReasonDown})
		<-inside.halted
	})
}

func TestConfirmsHaveTheirFullTimeAfterAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		if got := d.grace(time.Second); got != 0 {
			t.Errorf("without an alarm: %v more", got)
		}
		d.close(trouble{what: "the broker has an alarm", reason: ReasonAlarm})
		time.Sleep(time.Hour)
		if got := d.grace(time.Second); got != time.Second {
			t.Errorf("during an alarm: %v more", got)
		}
		d.open(&session{})
		time.Sleep(400 * time.Millisecond)
		if got := d.grace(time.Second); got != 600*time.Millisecond {
			t.Errorf("soon after an alarm: %v more", got)
		}
		time.Sleep(time.Second)
		if got := d.grace(time.Second); got != 0 {
			t.Errorf("long after an alarm: %v more", got)
		}
	})
}

func TestClosingDoorWaitsForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDoor(10)
		inside := mustEnter(t, d, 1)
		idle := d.closing(trouble{what: "stopping", reason: ReasonNotRunning})
		if _, err := d.enter(t.Context(), 1); reason(err) != ReasonNotRunning {
			t.Fatalf("got %v", err)
		}
		select {
		case <-inside.halted:
			t.Fatal("what is in flight was halted")
		case <-idle:
			t.Fatal("idle too early")
		default:
		}
		d.leave(inside)
		<-idle
	})
}

// Whoever stops waits for the messages that somebody waits for, and for no others.
func TestDoorClosesWithoutThoseThatAreForsaken(t *testing.T) {
	d := newDoor(3, 100, time.Now, fullJitter)
	d.open(nil)
	var passes []*pass
	for range 2 {
		p, err := d.enter(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		passes = append(passes, p)
	}
	d.forsake(passes[0])
	idle := d.closing(trouble{what: "stopping", reason: ReasonNotRunning})
	select {
	case <-idle:
		t.Fatal("it does not wait for a message that somebody waits for")
	default:
	}
	d.leave(passes[1])
	select {
	case <-idle:
	default:
		t.Fatal("it waits for a message that nobody waits for")
	}
	d.leave(passes[0])
	if count, _ := d.load(); count != 0 || d.alone != 0 {
		t.Errorf("%d in flight, %d of them alone", count, d.alone)
	}
}
