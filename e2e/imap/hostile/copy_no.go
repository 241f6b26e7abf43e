package hostile

import (
	"fmt"
)

func copyNo() Scenario {
	return Scenario{
		About: "A server without MOVE refuses to copy: what is deleted all the same is lost.",
		Setup: func(s *Server) {
			s.Without("MOVE")
			s.Fill("INBOX", 1, 6)
			s.Add("Done", "", 1700000003)
		},
		Account: `after: move:Done`,
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID COPY" {
					return false
				}
				s.always()
				s.No(c, "[OVERQUOTA] the mailbox is full")
				return true
			},
		},
		Want: Want{Unmarked: true, Check: func(s *Server) error {
			if left := s.UIDs("INBOX"); len(left) != 6 || s.Asked("(UID )?EXPUNGE") > 0 || s.FlagsOf("INBOX", 1) == `\Deleted` {
				return fmt.Errorf("INBOX holds %v", left)
			}
			return nil
		}},
	}
}
