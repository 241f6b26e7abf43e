package hostile

func searchLies() Scenario {
	return Scenario{
		About: "SEARCH names mails that are not there, each time.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID SEARCH" {
					return false
				}
				found, err := s.SearchResult(c)
				if err != nil {
					return false
				}
				s.always()
				s.SendSearch(c, append(found, 101, 202))
				s.OK(c, "done")
				return true
			},
		},
		Want: Want{Fetches: 40},
	}
}
