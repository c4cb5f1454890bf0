package redis

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// counter is a hook that counts what is sent.
type counter struct{ sent *atomic.Int64 }

// DialHook implements [redis.Hook].
func (c counter) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (c counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.sent.Add(1)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (c counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.sent.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// Commands is how many commands were sent to the server so far; one that is sent again
// counts once.
func (s *Store) Commands() int64 { return s.sent.Load() }
