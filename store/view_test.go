package store_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chaperone/store"
)

// TestViewIsTheModel does at random what can happen to a store and to the way to it, also
// while the view reads. Whenever the view is at a mark it holds what the model held there;
// when it says that it was current at a moment, it has what had happened by then.
func TestViewIsTheModel(t *testing.T) {
	for seed := range uint64(1000) {
		synctest.Test(t, func(t *testing.T) {
			m, all := newModel(seed), []*kept{newKept("a", "b"), newKept("d")}
			for i := range m.rng.IntN(5) {
				m.change(fmt.Sprint("a", i), "before")
			}
			v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: m, Consumers: []store.Consumer{all[0], all[1]}})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			for range 40 {
				m.mu.Lock()
				m.disturb()
				pause := m.rng.IntN(3) == 0
				length := time.Duration(m.rng.IntN(400)) * time.Millisecond
				m.mu.Unlock()
				if pause {
					time.Sleep(length)
					synctest.Wait()
					m.compare(t, v, all)
				}
			}
			time.Sleep(30 * time.Second) // longer than all pauses
			synctest.Wait()
			m.compare(t, v, all)
			end, _ := m.Mark(t.Context())
			_, loading := all[0].state()
			if v.Mark() != end || v.Age() > time.Second || v.Lost() != nil || loading {
				t.Fatalf("seed %d: it stands at %+v, %v old, lost %v, loading %v; want %+v after %q", seed, v.Mark(), v.Age(), v.Lost(), loading, end, m.did)
			}
		})
	}
}

// compare holds the view against the history.
func (m *model) compare(t *testing.T, v *store.View, all []*kept) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	at, current := v.Mark(), time.Now().Add(-v.Age())
	if !m.knows(at) {
		if current.After(m.lost) {
			t.Fatalf("at %+v, which is lost since %v, the view says that it was current at %v, after %q", at, m.lost, current, m.did)
		}
		return // it has not noticed yet, and grows older
	}
	for i := at.Seq; i < uint64(len(m.past)); i++ {
		if m.when[i].Before(current) {
			t.Fatalf("at %+v the view says that it was current at %v, and has not what happened at %v, after %q", at, current, m.when[i], m.did)
		}
	}
	for _, k := range all {
		got, loading := k.state()
		if loading {
			continue
		}
		want := m.state(at.Seq)
		maps.DeleteFunc(want, func(name, _ string) bool { return !strings.Contains(strings.Join(k.prefixes, ""), name[:1]) })
		if !maps.Equal(got, want) {
			t.Fatalf("at %+v the view holds %v and the model %v, after %q", at, got, want, m.did)
		}
	}
}

// TestViewGrowsOld has the feed fail: the view says since when, and that it is back.
func TestViewGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, k := newModel(0), newKept("a", "b")
		var told []string
		v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: m, Consumers: []store.Consumer{k}, Lost: func(err error) { told = append(told, fmt.Sprint(err)) }})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		time.Sleep(time.Minute)
		if v.Age() > time.Second {
			t.Errorf("it is %v old and nothing is wrong", v.Age())
		}
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		m.change("a1", "meanwhile")
		time.Sleep(20 * time.Second)
		if age := v.Age(); age < 20*time.Second || age > 22*time.Second || !errors.Is(v.Lost(), errModel) {
			t.Errorf("after 20 s it is %v old, lost: %v", age, v.Lost())
		}
		m.mu.Lock()
		m.dead = false
		m.mu.Unlock()
		time.Sleep(3 * time.Second)
		if got, _ := k.state(); got["a1"] != "meanwhile" || v.Age() > time.Second || v.Lost() != nil {
			t.Errorf("back again it holds %v, is %v old, lost: %v", got, v.Age(), v.Lost())
		}
		if len(told) != 2 || told[0] != errModel.Error() || told[1] != "<nil>" {
			t.Errorf("its owner was told %q", told)
		}
	})
}
