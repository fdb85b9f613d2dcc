package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// contentLines is the type of a stream: one JSON object per line, in the form of the gateway's streams. A line is
// {"result": …}, or {"error": …} at an end that the client did not cause.
const contentLines = "application/x-ndjson"

// serveHold serves HoldLease over HTTP.
func (g *gateway) serveHold(w http.ResponseWriter, r *http.Request, params map[string]string) {
	ctx, err := runtime.AnnotateIncomingContext(r.Context(), g.mux, r, pb.CartService_HoldLease_FullMethodName)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	r = r.WithContext(ctx)
	if err := g.service.openStream(); err != nil {
		g.refuse(w, r, err)
		return
	}
	defer g.service.streams.Add(-1)
	defer lasts(ctx)()
	in := &pb.HoldLeaseRequest{}
	if body, ok := r.Body.(*requestBody); ok {
		if err := decodeBody(body.text, in.ProtoReflect()); err != nil && !errors.Is(err, io.EOF) {
			g.refuse(w, r, err)
			return
		}
	}
	in.Identifier, in.Instance = params["identifier"], params["instance"]
	out := &lines{w: w, rc: http.NewResponseController(w), contentType: contentLines}
	f := g.service.hold(r.Context(), in, func(m *pb.LeaseGrant) error {
		text, err := appendMessage([]byte(`{"result":`), m.ProtoReflect())
		if err != nil {
			return err
		}
		if !out.begun {
			setIdentity(w.Header(), httpCallOf(ctx))
		}
		return out.write(append(text, '}'))
	})
	switch {
	case f == nil:
	case !out.begun:
		writeFailure(w, r, f)
	default:
		var buf bytes.Buffer
		e := json.NewEncoder(&buf)
		e.SetEscapeHTML(false)
		_ = e.Encode(map[string]errorBody{"error": f.body()}) // strings and numbers always encode
		_ = out.write(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
	}
}

// lines writes one line after the other, and flushes each.
type lines struct {
	w           http.ResponseWriter
	rc          *http.ResponseController
	contentType string
	begun       bool
}

func (l *lines) write(line []byte) error {
	if !l.begun {
		l.begun = true
		h := l.w.Header()
		h.Set("Content-Type", l.contentType)
		h.Set("Cache-Control", "no-store")
	}
	// A client that does not read loses its lease or its watch.
	_ = l.rc.SetWriteDeadline(time.Now().Add(answerGrace))
	if _, err := l.w.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := l.rc.Flush(); err != nil {
		return err
	}
	// The deadline is for this line only. Over HTTP/2 it would otherwise end a stream that is silent for longer.
	return l.rc.SetWriteDeadline(time.Time{})
}
