package hostile

import (
	"time"
)

func slow() Scenario {
	return Scenario{
		About: "Each body takes a tenth of a second.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.Flush()
				s.Pause(100 * time.Millisecond)
				return false
			},
		},
		Want: Want{Faults: -1},
	}
}
