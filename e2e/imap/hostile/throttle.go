package hostile

func throttleScenario() Scenario {
	return Scenario{
		About: "A FETCH is refused for coming too often.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() {
					return false
				}
				s.always()
				s.No(c, "[THROTTLED] slow down")
				return true
			},
		},
		Want: Want{Nothing: true, Fetches: 1, Log: "slow down"},
	}
}
