package account

import (
	"crypto/sha256"
	"encoding/binary"
)

// Select returns the accounts that are switched on and belong to shard index of count, in their order. Each belongs to exactly one. Which one follows from
// its id alone (rendezvous hashing: the shard whose number, hashed with the id, gives the most), so another shard takes its part of each of
// the others, and nothing moves between those.
func Select(accounts []Account, index, count int) []Account {
	var mine []Account
	for _, a := range accounts {
		if a.Enabled && shardOf(a.ID, count) == index {
			mine = append(mine, a)
		}
	}
	return mine
}

func shardOf(id string, count int) int {
	best, most := 0, uint64(0)
	for shard := range count {
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], uint64(shard))
		sum := sha256.Sum256(append(number[:], id...))
		if weight := binary.BigEndian.Uint64(sum[:]); shard == 0 || weight > most {
			best, most = shard, weight
		}
	}
	return best
}
