package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/sidecart/sidecart/internal/config"
)

// style is the format of log lines and the least level that is written. A reload may change both.
type style struct {
	level slog.LevelVar
	json  atomic.Bool
}

func (s *style) set(c *config.Config) {
	s.level.Set(levelOf(c.LogLevel))
	s.json.Store(c.LogFormat == config.LogJSON)
}

// newLogger writes to w.
func newLogger(w io.Writer, s *style) *slog.Logger {
	o := &slog.HandlerOptions{Level: &s.level}
	return slog.New(styledHandler{style: s, json: slog.NewJSONHandler(w, o), text: slog.NewTextHandler(w, o)})
}

// styledHandler writes each record in the present format.
type styledHandler struct {
	style      *style
	json, text slog.Handler
}

func (h styledHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.json.Enabled(ctx, l) }

func (h styledHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.style.json.Load() {
		return h.json.Handle(ctx, r)
	}
	return h.text.Handle(ctx, r)
}

func (h styledHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return styledHandler{h.style, h.json.WithAttrs(a), h.text.WithAttrs(a)}
}

func (h styledHandler) WithGroup(name string) slog.Handler {
	return styledHandler{h.style, h.json.WithGroup(name), h.text.WithGroup(name)}
}

// levelOf is the level of a valid configuration.
func levelOf(l config.LogLevel) slog.Level {
	switch l {
	case config.LogDebug:
		return slog.LevelDebug
	case config.LogWarn:
		return slog.LevelWarn
	case config.LogError:
		return slog.LevelError
	case config.LogInfo:
	}
	return slog.LevelInfo
}
