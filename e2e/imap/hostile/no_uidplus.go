package hostile

import (
	"fmt"
)

func noUidplus() Scenario {
	return Scenario{
		About: "A server without UIDPLUS would expunge the mails of others with ours.",
		Setup: func(s *Server) {
			s.Without("UIDPLUS")
			s.Fill("INBOX", 1, 7)
			s.Flag("INBOX", 7, `\Seen \Deleted`)
		},
		Account: `after: delete`,
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6}, Faults: -1, Check: func(s *Server) error {
			if n := s.Asked("(UID )?EXPUNGE|CLOSE"); n > 0 || len(s.UIDs("INBOX")) != 7 {
				return fmt.Errorf("%d EXPUNGE or CLOSE, %d of 7 mails left", n, len(s.UIDs("INBOX")))
			}
			return nil
		}},
	}
}
