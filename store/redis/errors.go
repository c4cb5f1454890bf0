package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"chaperone/store"
)

// told turns an error of the client into one of the store's. What the server says
// is passed on: it names commands and states, never what is kept.
func told(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil):
		return store.ErrNotFound
	case errors.Is(err, redis.ErrClosed):
		return store.ErrClosed
	case errors.Is(err, context.Canceled):
		return err
	}
	answer, ok := errors.AsType[redis.Error](err)
	if !ok {
		return fmt.Errorf("%w: %v", store.ErrUnavailable, err)
	}
	text := answer.Error()
	for _, r := range refusals {
		if strings.HasPrefix(text, r.code) || strings.Contains(text, " -"+r.code) || strings.Contains(text, r.code+" ") {
			return fmt.Errorf("%w: %s", store.ErrRefused, r.text)
		}
	}
	return fmt.Errorf("%w: it says %q", store.ErrUnavailable, text)
}

// refusals are what a server says that another try will not change, by how its
// answer begins, and what that means.
var refusals = [...]struct{ code, text string }{
	{"READONLY", "it is a read-only copy; name its master, or use redis+sentinel"},
	{"OOM", "its memory is full (maxmemory)"},
	{"WRONGPASS", "user name or password is wrong"},
	{"NOAUTH", "it wants a password; name where it is with redis.password"},
	{"ERR AUTH", "user name or password is wrong"},
	{"NOPERM", "its access list does not let this user do what is needed; docs/replicas.md has the rule"},
	{"MISCONF", "it cannot write its own files"},
	{"NOREPLICAS", "it has too few copies in reach (min-replicas-to-write)"},
}

// named says which entry an error is about.
func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", name, err)
}
