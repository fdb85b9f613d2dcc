package controller

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// keepLastGood writes the configuration into its ConfigMap a second time, as the last good one, once sidecars run on
// it. A sidecar that refuses the next configuration and restarts then starts on this one.
//
// It is written when it has proved good, not when it is replaced: an operator that has just started would not know at
// that point whether any sidecar had accepted it.
func (r *Reconciler) keepLastGood(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar, generation int64) error {
	if !proven(sidecars, generation) {
		return nil
	}
	current, err := currentConfig(ctx, r.client, cs.Namespace, cs.Name)
	if err != nil || render.ConfigGeneration(current) != generation {
		return err // the cache is behind, and its update starts another round
	}
	want := render.WithLastGood(current)
	if want == nil {
		return nil
	}
	if err := r.apply(ctx, want); apierrors.IsConflict(err) {
		return nil // likewise
	} else if err != nil {
		return fmt.Errorf("apply ConfigMap %s: %w", want.Name, err)
	}
	ctrl.LoggerFrom(ctx).V(1).Info("configuration is the last good one", "generation", generation)
	return nil
}

// proven reports whether a configuration works: at least one sidecar has answered, and each that has runs it and
// reaches its backend. Sidecars that cannot be asked do not count.
func proven(sidecars []sidecar, generation int64) bool {
	answered := false
	for i := range sidecars {
		if s := &sidecars[i]; s.present && s.report != nil {
			if !s.settled(generation) {
				return false
			}
			answered = true
		}
	}
	return answered
}
