package collector

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"spamtraps.internal/imap-collector/internal/state"
)

// The set does what a map does.
func TestUIDSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var set, other uidSet
		want, wantOther := map[uint32]bool{}, map[uint32]bool{}
		for range 60 {
			first := 1 + random.Uint32N(40)
			last := first + random.Uint32N(4)
			set.addRange(state.Range{First: first, Last: last})
			for n := first; n <= last; n++ {
				want[n] = true
			}
			gone := 1 + random.Uint32N(44)
			set.remove(gone)
			delete(want, gone)
			n := 1 + random.Uint32N(44)
			other.add(n)
			wantOther[n] = true
		}
		if got := uidsIn(set.ranges); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("got %v, want %v", got, slices.Sorted(maps.Keys(want)))
		}
		for n := uint32(1); n < 50; n++ {
			if set.has(n) != want[n] {
				t.Fatalf("has %d: %v in %v", n, set.has(n), set.ranges)
			}
		}
		var missing []uint32
		for _, n := range uidsIn(other.ranges) {
			if !want[n] {
				missing = append(missing, n)
			}
		}
		if got := uidsIn(set.without(other.ranges)); !slices.Equal(got, missing) {
			t.Fatalf("%v without %v: %v, want %v", other.ranges, set.ranges, got, missing)
		}
		set.keep(&other)
		maps.DeleteFunc(want, func(n uint32, _ bool) bool { return !wantOther[n] })
		if got := uidsIn(set.ranges); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("kept %v, want %v", got, slices.Sorted(maps.Keys(want)))
		}
	}
	var end uidSet
	end.addRange(state.Range{First: 1, Last: math.MaxUint32})
	end.remove(math.MaxUint32)
	end.add(math.MaxUint32)
	if !end.has(math.MaxUint32) || len(end.ranges) != 1 {
		t.Errorf("%v", end.ranges)
	}
}
