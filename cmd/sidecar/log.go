package main

import (
	"io"
	"log/slog"

	"github.com/sidecart/sidecart/internal/config"
)

// newLogger writes to w. The level follows level, which a reload may set.
func newLogger(w io.Writer, format config.LogFormat, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
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
