package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// MovePath is where a change of a CartStorage whose carts are to move is completed.
const MovePath = "/move"

// Filler writes spec.moveFrom if orphanedCarts is Move and backend or keyPrefix changes to another place. Only the
// request that makes the change shows the former values. If the Filler does not answer, the rules of the definition
// refuse the change, so carts are never left behind.
type Filler struct {
	namespaces []string // that the operator keeps; empty is every one
}

// Handle implements [admission.Handler].
func (f *Filler) Handle(_ context.Context, req admission.Request) admission.Response {
	if !keeps(f.namespaces, req.Namespace) || len(req.OldObject.Raw) == 0 {
		return admission.Allowed("")
	}
	var was, is v1alpha1.CartStorage
	var rawWas, rawIs map[string]any
	for _, o := range []struct {
		raw  []byte
		into []any
	}{{req.OldObject.Raw, []any{&was, &rawWas}}, {req.Object.Raw, []any{&is, &rawIs}}} {
		for _, into := range o.into {
			if err := json.Unmarshal(o.raw, into); err != nil {
				return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode the CartStorage: %w", err))
			}
		}
	}
	if is.Spec.OrphanedCarts != v1alpha1.OrphanedMove || !is.DeletionTimestamp.IsZero() {
		return admission.Allowed("")
	}
	// The former values are copied as they were sent, since the rules compare moveFrom with them.
	before, _ := rawWas["spec"].(map[string]any)
	spec, _ := rawIs["spec"].(map[string]any)
	underWay := was.Spec.MoveFrom != nil && render.MoveState(&was) != v1alpha1.MoveFinished
	untouched := is.Spec.MoveFrom == nil || reflect.DeepEqual(before["moveFrom"], spec["moveFrom"])
	switch {
	case render.Moved(&was, &is) && untouched:
		if underWay && render.Moved(render.Former(&was), &is) {
			return admission.Denied(stillMoves)
		}
		spec["moveFrom"] = map[string]any{"backend": before["backend"], "keyPrefix": before["keyPrefix"]}
	case underWay && is.Spec.MoveFrom == nil: // a tool applied what it knows
		spec["moveFrom"] = before["moveFrom"]
	default:
		return admission.Allowed("")
	}
	after, err := json.Marshal(rawIs)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(req.Object.Raw, after)
}

// stillMoves is also the text of a rule of the definition. That rule looks only at the state of a move, which may be
// that of the move before.
const stillMoves = "spec.moveFrom: carts still move here from moveFrom: wait until status.move.state is Finished, or move them back by writing what stands under moveFrom into backend and keyPrefix, or write orphanedCarts: Accept to leave those behind that have not moved"
