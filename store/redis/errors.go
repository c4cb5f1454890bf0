package redis

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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
			return fmt.Errorf("%w: %s", r.err, r.text)
		}
	}
	return fmt.Errorf("%w: it says %q", store.ErrUnavailable, text)
}

// refusals are what a server says that another try will not change, by how its
// answer begins, and what that means.
var refusals = [...]struct {
	code string
	err  error
	text string
}{
	{"READONLY", store.ErrRefused, readOnly},
	{"UNBLOCKED", store.ErrRefused, readOnly}, // it has become one while it was asked
	{"OOM", store.ErrFull, "its memory is full (maxmemory)"},
	{"WRONGPASS", store.ErrRefused, "user name or password is wrong"},
	{"NOAUTH", store.ErrRefused, "it wants a password; name where it is with redis.password"},
	{"ERR AUTH", store.ErrRefused, "user name or password is wrong"},
	{"NOPERM", store.ErrRefused, barred},
	{"ERR The user executing the script", store.ErrRefused, barred},
	{"ERR ACL failure in script", store.ErrRefused, barred},
	{"MISCONF", store.ErrRefused, "it cannot write its own files"},
	{"NOREPLICAS", store.ErrRefused, "it has too few copies in reach (min-replicas-to-write)"},
}

const (
	readOnly = "it is a read-only copy; name its master, or use redis+sentinel"
	barred   = "its access list does not let this user do what is needed; docs/replicas.md has the rule"
)

// meant says of a server that cannot be opened what else its address may have to be. It
// passes on all other errors.
func (a Address) meant(err error) error {
	if err == nil {
		return nil
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case a.Sentinel && errors.Is(err, redis.Nil):
		return fmt.Errorf("%w: the sentinels know no master %q", store.ErrRefused, a.Master)
	case !a.TLS && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it closes the connection; if it wants TLS, write rediss", store.ErrUnavailable)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: who signed its certificate is not trusted; name that CA with redis.roots", store.ErrRefused)
	case errors.As(err, &host):
		return fmt.Errorf("%w: %v", store.ErrRefused, err)
	}
	text := err.Error()
	for _, m := range mistaken {
		if strings.Contains(text, m.answer) {
			return fmt.Errorf("%w: %s", store.ErrRefused, m.text)
		}
	}
	return told(err)
}

// mistaken are answers of servers that are not of the kind that the address says.
var mistaken = [...]struct{ answer, text string }{
	{"MOVED ", "it is a node of a cluster; write redis+cluster"},
	{"cluster support disabled", "it is no node of a cluster; write redis"},
	{"cluster has no nodes", "it is a node that has joined no cluster"},
	{"unknown command 'sentinel'", "it is no sentinel; write redis"},
	{"unknown command 'evalsha'", "it runs no scripts; if it is a sentinel, write redis+sentinel://HOST/MASTER"},
	{"first record does not look like a TLS handshake", "it speaks no TLS; write redis, or name its TLS port"},
}

// named says which entry an error is about.
func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", name, err)
}
