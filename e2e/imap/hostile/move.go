package hostile

import (
	"fmt"
)

func moveScenario() Scenario {
	return Scenario{
		About: "An honest server with MOVE.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Add("Done", "", 1700000003)
		},
		Account: `after: move:Done`,
		Want: Want{Faults: -1, Check: func(s *Server) error {
			if len(s.UIDs("INBOX")) != 0 || len(s.UIDs("Done")) != 6 {
				return fmt.Errorf("INBOX holds %v, Done %v", s.UIDs("INBOX"), s.UIDs("Done"))
			}
			return nil
		}},
	}
}
