package collector

import (
	"slices"

	"spamtraps.internal/imap-collector/internal/state"
)

// uidSet is a set of UIDs, kept as ranges: a folder of two millions is one range as a rule.
type uidSet struct{ ranges []state.Range }

// at returns the first range that ends at uid or behind it.
func (s *uidSet) at(uid uint32) int {
	i, _ := slices.BinarySearchFunc(s.ranges, uid, func(r state.Range, uid uint32) int {
		switch {
		case r.Last < uid:
			return -1
		case r.First > uid:
			return 1
		}
		return 0
	})
	return i
}

func (s *uidSet) has(uid uint32) bool {
	i := s.at(uid)
	return i < len(s.ranges) && s.ranges[i].First <= uid
}

func (s *uidSet) add(uid uint32) { s.addRange(state.Range{First: uid, Last: uid}) }

// addRange joins a range with those that it touches.
func (s *uidSet) addRange(r state.Range) {
	from := s.at(r.First)
	if from > 0 && r.First > 0 && s.ranges[from-1].Last == r.First-1 {
		from--
	}
	to := from
	for to < len(s.ranges) && (s.ranges[to].First <= r.Last || s.ranges[to].First-1 == r.Last) {
		r.First, r.Last = min(r.First, s.ranges[to].First), max(r.Last, s.ranges[to].Last)
		to++
	}
	s.ranges = slices.Replace(s.ranges, from, to, r)
}

func (s *uidSet) remove(uid uint32) {
	i := s.at(uid)
	if i == len(s.ranges) || s.ranges[i].First > uid {
		return
	}
	r := s.ranges[i]
	var left []state.Range
	if r.First < uid {
		left = append(left, state.Range{First: r.First, Last: uid - 1})
	}
	if uid < r.Last {
		left = append(left, state.Range{First: uid + 1, Last: r.Last})
	}
	s.ranges = slices.Replace(s.ranges, i, i+1, left...)
}

// without returns what of ranges is not in the set.
func (s *uidSet) without(ranges []state.Range) []state.Range {
	var left []state.Range
	for _, r := range ranges {
		for i := s.at(r.First); i < len(s.ranges) && s.ranges[i].First <= r.Last; i++ {
			if known := s.ranges[i]; known.First > r.First {
				left = append(left, state.Range{First: r.First, Last: known.First - 1})
			}
			if s.ranges[i].Last >= r.Last {
				r.First, r.Last = 1, 0 // nothing is left
				break
			}
			r.First = s.ranges[i].Last + 1
		}
		if r.First <= r.Last {
			left = append(left, r)
		}
	}
	return left
}

// keep drops what is not in other.
func (s *uidSet) keep(other *uidSet) {
	var kept []state.Range
	for _, r := range s.ranges {
		for i := other.at(r.First); i < len(other.ranges) && other.ranges[i].First <= r.Last; i++ {
			kept = append(kept, state.Range{First: max(r.First, other.ranges[i].First), Last: min(r.Last, other.ranges[i].Last)})
		}
	}
	s.ranges = kept
}

func count(ranges []state.Range) int {
	n := 0
	for _, r := range ranges {
		n += int(r.Last-r.First) + 1
	}
	return n
}

// uidsIn returns the UIDs of ranges, which are known to be few.
func uidsIn(ranges []state.Range) []uint32 {
	uids := make([]uint32, 0, count(ranges))
	for _, r := range ranges {
		for n := uint64(r.First); n <= uint64(r.Last); n++ {
			uids = append(uids, uint32(n))
		}
	}
	return uids
}
