package controller

import (
	"errors"
	"strings"
	"sync"
	"time"
)

// misses remember which CartStorages the API server does not have, and bound how often it is asked, since anybody who
// creates a pod chooses the name. All of it is forgotten after a second.
type misses struct {
	now func() time.Time

	mu     sync.Mutex
	window time.Time
	asked  int
	by     map[string]int // by namespace
	absent map[string]time.Time
}

const (
	missLife     = time.Second // a CartStorage that is created meanwhile is found in the cache
	askWindow    = time.Second
	mostAsked    = 50 // in a window, of all namespaces
	mostAskedOne = 5  // of one
)

// errBusy means that the API server was not asked, since there were too many questions.
var errBusy = errors.New("too many pods name CartStorages that are not there: try again")

// look says whether to ask for key. known means that it was not there a moment ago. An error means that no more can be
// asked now.
func (m *misses) look(namespace, name string) (known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if at, ok := m.absent[namespace+"/"+name]; ok && now.Sub(at) < missLife {
		return true, nil
	}
	if now.Sub(m.window) >= askWindow || m.by == nil {
		m.window, m.asked, m.by = now, 0, map[string]int{}
		for key, at := range m.absent {
			if now.Sub(at) >= missLife {
				delete(m.absent, key)
			}
		}
	}
	if m.asked >= mostAsked || m.by[namespace] >= mostAskedOne {
		return false, errBusy
	}
	m.asked++
	m.by[strings.Clone(namespace)]++
	return false, nil
}

// note remembers that the CartStorage is not there.
func (m *misses) note(namespace, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.absent == nil {
		m.absent = map[string]time.Time{}
	}
	m.absent[namespace+"/"+name] = m.now()
}
