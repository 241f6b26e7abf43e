package hostile

import (
	"fmt"
)

func idFirst() Scenario {
	return Scenario{
		About: "SELECT is refused to those who have not said who they are, as some large providers do.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				switch {
				case c.Name == "ID":
					s.Nth(fmt.Sprintf("id %d", s.Number))
				case c.is("SELECT", "EXAMINE") && s.Times(fmt.Sprintf("id %d", s.Number)) == 0:
					s.always()
					s.No(c, "unsafe login: say who you are")
					return true
				}
				return false
			},
		},
		Want: Want{Faults: -1},
	}
}
