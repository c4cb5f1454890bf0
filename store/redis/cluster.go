package redis

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"chaperone/store"
)

// watcher is a hook of a cluster's client: when a node does not answer, it has the
// client ask the others who has taken over. By itself the client asks once a minute,
// and goes to a dead node until then.
type watcher struct{ cluster *redis.ClusterClient }

// watchful makes a cluster's client ask who has what, as soon as that is in doubt.
func watchful(c *redis.ClusterClient) *redis.ClusterClient {
	c.AddHook(watcher{c})
	return c
}

// DialHook implements [redis.Hook].
func (w watcher) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (w watcher) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if errors.Is(told(err), store.ErrUnavailable) {
			w.cluster.ReloadState(ctx) // in the background, and one at a time
		}
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (w watcher) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
