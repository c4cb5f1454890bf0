package opa

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"chaperone/policy"
)

// Bounds of a memory: 64 shards of 256 answers, under keys of at most 1 KiB.
const (
	shards     = 64
	shardSize  = 256
	maxKeySize = 1024
)

// memory keeps what follows from its key and from nothing else: the answers of one
// engine under all of the input that its policy reads, and the part of the input
// that is about the caller under what it is made of. Policy and data never change in an engine, and a
// policy that calls a function which depends on anything else has its answers
// not remembered. The key is kept whole: no two questions share one.
type memory[T any] struct {
	seed   maphash.Seed
	shards [shards]shard[T]
}

type shard[T any] struct {
	mu   sync.RWMutex
	kept map[string]T
}

func newMemory[T any]() *memory[T] {
	m := &memory[T]{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].kept = map[string]T{}
	}
	return m
}

func (m *memory[T]) shard(key []byte) *shard[T] {
	return &m.shards[maphash.Bytes(m.seed, key)%shards]
}

func (m *memory[T]) recall(key []byte) (T, bool) {
	s := m.shard(key)
	s.mu.RLock()
	v, ok := s.kept[string(key)]
	s.mu.RUnlock()
	return v, ok
}

// keep remembers v, unless its key is too long; of a full shard any one is forgotten.
func (m *memory[T]) keep(key []byte, v T) {
	if len(key) > maxKeySize {
		return
	}
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) >= shardSize {
		for old := range s.kept {
			delete(s.kept, old)
			break
		}
	}
	s.kept[string(key)] = v
}

// forget empties a memory; a nil one is empty.
func (m *memory[T]) forget() {
	if m == nil {
		return
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		clear(s.kept)
		s.mu.Unlock()
	}
}

// apart returns a copy of an answer that its caller may change.
func apart(a policy.Answer) policy.Answer {
	a.Reasons = slices.Clip(a.Reasons) // appending copies
	if a.Obligations != nil {
		a.Obligations = maps.Clone(a.Obligations)
	}
	return a
}

// key is a writer of what an answer depends on. Texts and lists carry their
// length, so that no two inputs run together.
type key []byte

func (k key) text(s string) key {
	return append(binary.AppendUvarint(k, uint64(len(s))), s...)
}

func (k key) number(n int64) key { return binary.AppendVarint(k, n) }

func (k key) flag(b bool) key {
	if b {
		return append(k, 1)
	}
	return append(k, 0)
}

func (k key) list(ss []string) key {
	k = k.number(int64(len(ss)))
	for _, s := range ss {
		k = k.text(s)
	}
	return k
}

// memorable reports whether answers may be kept. Headers, query and body are
// left out: they seldom repeat, and they may hold what must not stay in memory.
func (r *reads) memorable() bool { return !r.headers && !r.query && !r.body }

// key appends all that [Engine.input] puts into the input.
func (r *reads) key(k key, q *policy.Question) key {
	k = r.caller(k, q)
	if r.instance {
		k = k.text(q.Instance)
	}
	k = k.action(&q.Action).list(q.Resource.Keys)
	if r.resource {
		k = k.resource(&q.Resource)
	} else if r.resourceID {
		k = k.text(q.Resource.Type).text(q.Resource.ID)
	}
	if r.actions {
		k = k.number(int64(len(q.Actions)))
		for i := range q.Actions {
			k = k.action(&q.Actions[i].Action).resource(&q.Actions[i].Resource)
		}
	}
	k = k.text(q.Request.Method).text(q.Request.Scheme).text(q.Request.Host).number(int64(q.Request.Port)).text(string(q.Request.BodyState))
	if r.path || r.raw && !q.Action.Known {
		k = k.text(q.Request.Path)
	}
	if r.credential {
		k = k.flag(q.Credential != nil)
		if c := q.Credential; c != nil {
			k = k.text(c.ID).text(c.Owner).text(c.Kind).text(c.Service)
		}
	}
	if r.phase {
		k = k.text(string(q.Phase))
	}
	if r.time {
		k = k.number(q.Time)
	}
	return k
}

// caller appends who asks: agent, human and session.
func (r *reads) caller(k key, q *policy.Question) key {
	k = k.text(q.Agent.ID).text(q.Agent.Owner)
	if r.labels {
		k = k.number(int64(len(q.Agent.Labels)))
		for _, name := range slices.Sorted(maps.Keys(q.Agent.Labels)) {
			k = k.text(name).text(q.Agent.Labels[name])
		}
	}
	k = k.flag(q.Human != nil)
	if h := q.Human; h != nil {
		k = k.text(h.Sub).text(h.Iss).text(h.Email).list(h.Groups)
	}
	return r.delegation(k, q.Session)
}

func (k key) action(a *policy.Action) key {
	return k.text(a.ID).text(a.Service).text(a.Operation).text(string(a.Access)).flag(a.Known).list(a.Keys)
}

func (k key) resource(r *policy.Resource) key {
	k = k.text(r.Type).text(r.ID).number(int64(len(r.Params)))
	for _, p := range r.Params {
		k = k.text(p.Name).text(p.Value)
	}
	return k
}

func (r *reads) delegation(k key, s *policy.Session) key {
	k = k.flag(s != nil)
	if s == nil {
		return k
	}
	if r.session {
		k = k.text(s.ID).text(s.Purpose).number(s.Created).number(s.Expires).text(s.Parent)
	}
	if r.scope {
		k = k.flag(s.Scope != nil).number(int64(len(s.Scope)))
		for _, x := range s.Scope {
			k = k.list(x.Actions).flag(x.Resources != nil).list(x.Resources)
		}
	}
	if r.chain {
		k = k.number(int64(len(s.Chain)))
		for _, l := range s.Chain {
			k = k.text(l.Session).text(l.Agent).text(l.Instance)
		}
	}
	return k
}
