package state

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Range is the UIDs from First to Last, both included. First ≤ Last.
type Range struct{ First, Last uint32 }

// uids is a set of UIDs: ranges in order that neither overlap nor touch.
type uids []Range

func (u uids) has(uid uint32) bool {
	_, found := slices.BinarySearchFunc(u, uid, func(r Range, uid uint32) int {
		switch {
		case r.Last < uid:
			return -1
		case r.First > uid:
			return 1
		default:
			return 0
		}
	})
	return found
}

// setOf makes a set of ranges in any order; those that are none, and the UID 0, which there is not, are left out.
func setOf(ranges []Range) uids {
	sorted := make(uids, 0, len(ranges))
	for _, r := range ranges {
		r.First = max(r.First, 1)
		if r.First <= r.Last {
			sorted = append(sorted, r)
		}
	}
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return sorted.joined()
}

func setOfUIDs(list []uint32) uids {
	ranges := make([]Range, len(list))
	for i, uid := range list {
		ranges[i] = Range{uid, uid}
	}
	return setOf(ranges)
}

// joined joins ranges, sorted by their beginning, that overlap or touch. It works in place.
func (u uids) joined() uids {
	out := u[:0]
	for _, r := range u {
		if n := len(out); n > 0 && uint64(r.First) <= uint64(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// union returns the set of what is in one of the two. What comes behind all the rest, as new mail does, is cheap: u may be changed.
func (u uids) union(other uids) uids {
	if len(other) == 0 {
		return u
	}
	if n := len(u); n == 0 || other[0].First > u[n-1].First {
		tail := append(slices.Clone(u[max(n-1, 0):]), other...).joined()
		return append(u[:max(n-1, 0)], tail...)
	}
	both := append(slices.Clone(u), other...)
	slices.SortFunc(both, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return both.joined()
}

// without returns what of u is not in other.
func (u uids) without(other uids) uids {
	var out uids
	i := 0
	for _, r := range u {
		next := uint64(r.First)
		for i < len(other) && other[i].Last < r.First {
			i++
		}
		for j := i; j < len(other) && other[j].First <= r.Last; j++ {
			if uint64(other[j].First) > next {
				out = append(out, Range{uint32(next), other[j].First - 1})
			}
			next = max(next, uint64(other[j].Last)+1)
		}
		if next <= uint64(r.Last) {
			out = append(out, Range{uint32(next), r.Last})
		}
	}
	return out
}

func (u uids) len() uint64 {
	n := uint64(0)
	for _, r := range u {
		n += uint64(r.Last-r.First) + 1
	}
	return n
}

// appendText appends ranges as text, as IMAP writes them but with a dash: "1-4711,4713".
func (u uids) appendText(text []byte) []byte {
	for i, r := range u {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, uint64(r.First), 10)
		if r.Last > r.First {
			text = append(text, '-')
			text = strconv.AppendUint(text, uint64(r.Last), 10)
		}
	}
	return text
}

var errNoRanges = errors.New("is no list of UIDs")

// parseUIDs reads what appendText has written.
func parseUIDs(text string) ([]Range, error) {
	var ranges []Range
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, errNoRanges
		}
		to, err := strconv.ParseUint(last, 10, 32)
		if err != nil || from == 0 || to < from {
			return nil, errNoRanges
		}
		ranges = append(ranges, Range{uint32(from), uint32(to)})
	}
	return ranges, nil
}
