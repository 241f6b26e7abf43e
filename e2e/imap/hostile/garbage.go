package hostile

func garbage() Scenario {
	return Scenario{
		About: "A FETCH is answered with noise.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() || !s.fault(2) {
					return false
				}
				noise := make([]byte, 5000)
				for i := range noise {
					noise[i] = byte(i * 7)
				}
				s.SendBytes(noise)
				return true
			},
		},
	}
}
