package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/lmtp-collector/internal/memory"
)

const (
	mib     = 1 << 20
	own     = 64 << 10 // of each room, with this budget
	rooms   = 16
	largest = 4 * mib
	total   = 16 * mib
	pool    = total - rooms*own - largest
)

func grow(t *testing.T, room *memory.Room, size int64) {
	t.Helper()
	if err := room.Grow(t.Context(), size); err != nil {
		t.Fatalf("Grow to %d: %v", size, err)
	}
}

// waits tells whether a Grow to size does not come back within an hour.
func waits(t *testing.T, room *memory.Room, size int64) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	err := room.Grow(ctx, size)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Grow to %d: %v", size, err)
	}
	return err != nil
}

func TestSmallMailNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.NewBudget(total, rooms, largest)
		grow(t, b.NewRoom(), pool+own)
		privileged := b.NewRoom()
		grow(t, privileged, largest)
		if !waits(t, b.NewRoom(), own+1) {
			t.Error("there was room beyond the budget")
		}
		for range rooms - 2 {
			grow(t, b.NewRoom(), own)
		}
	})
}

// Mails that are half here and wait for each other are done with one by one.
func TestLargeMailsGetThereOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.NewBudget(total, rooms, largest)
		done := make(chan int64, rooms)
		for range rooms {
			go func() {
				room := b.NewRoom()
				defer room.Free()
				for size := int64(own); size <= largest; size += own {
					if err := room.Grow(t.Context(), size); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond) // the bytes come
				}
				done <- 1
			}()
		}
		for range rooms {
			<-done
		}
		whole := b.NewRoom()
		grow(t, whole, pool+own) // all of it has come back
		room := b.NewRoom()
		grow(t, room, own+1) // and so has the privilege
		if !waits(t, b.NewRoom(), own+1) {
			t.Error("the privilege is had twice")
		}
	})
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.NewBudget(total, rooms, largest)
		first := b.NewRoom()
		grow(t, first, pool+own)
		privileged := b.NewRoom()
		grow(t, privileged, own+1)
		var order []string
		wait := func(name string, size int64) {
			room := b.NewRoom()
			grow(t, room, size)
			order = append(order, name)
			room.Free()
		}
		go wait("large", pool+own)
		synctest.Wait()
		go wait("small", own+1)
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%q did not wait", order)
		}
		first.Free()
		synctest.Wait()
		if len(order) != 2 || order[0] != "large" {
			t.Errorf("the order was %q", order)
		}
	})
}

// Who gives up waiting leaves nothing taken.
func TestGivingUpTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.NewBudget(total, rooms, largest)
		first, privileged := b.NewRoom(), b.NewRoom()
		grow(t, first, pool+own)
		grow(t, privileged, own+1)
		late := b.NewRoom()
		if !waits(t, late, largest) {
			t.Fatal("it did not wait")
		}
		late.Free()
		first.Free()
		privileged.Free()
		grow(t, b.NewRoom(), pool+own)
	})
}
