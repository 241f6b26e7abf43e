package hostile

import "time"

func loginLimit() Scenario {
	return Scenario{
		About: "A login is refused because there are too many connections.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.is("LOGIN", "AUTHENTICATE") {
					return false
				}
				s.always()
				s.No(c, "[LIMIT] too many connections of this user")
				return true
			},
		},
		Want: Want{Nothing: true, Apart: 55 * time.Second, Log: "too many connections"},
	}
}
