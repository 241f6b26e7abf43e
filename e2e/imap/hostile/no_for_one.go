package hostile

import (
	"slices"
	"strings"
)

func noForOne() Scenario {
	return Scenario{
		About: "Whatever is fetched together with one mail is refused.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				return m.UID == 3
			},
			FetchDone: func(s *Session, c *Command) bool {
				set, _, _ := strings.Cut(c.Args, " ")
				picked, err := s.picked(set)
				if err != nil || !slices.Contains(picked, 3) {
					return false
				}
				s.always()
				s.No(c, "internal error")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, Fetches: 60},
	}
}
