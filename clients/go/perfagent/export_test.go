package perfagent

import "time"

// WithSilence says how long a watch waits for a message.
func WithSilence(silence time.Duration) Option {
	return func(s *settings) error {
		s.policy.silence = silence
		return nil
	}
}
