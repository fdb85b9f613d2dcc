package render

import (
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// ConfigMapName is the name of the ConfigMap of a CartStorage.
func ConfigMapName(cartStorage string) string { return cartStorage + "-sidecart" }

// ConfigMap returns what the sidecars of cs mount. Current is the one that exists, or nil. If nothing else has changed,
// the generation stays as it is. Otherwise it is one more than the greater of that of current and floor, the highest
// generation that any sidecar is known to run.
//
// It has no owner, since pods may outlive their CartStorage, and what they mount must outlive them. The operator
// removes it when no pod uses it any more.
//
// The error says why the resource gives no valid configuration. It is a [config.Problems] if single fields are wrong.
func ConfigMap(cs *v1alpha1.CartStorage, locking v1alpha1.LockingStatus, current *corev1.ConfigMap, floor int64) (*corev1.ConfigMap, error) {
	generation := ConfigGeneration(current)
	data, err := marshal(cs, locking, generation)
	if err == nil && (generation == 0 || current.Data[ConfigFile] != data) {
		generation = max(generation, floor) + 1
		data, err = marshal(cs, locking, generation)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]string{ConfigFile: data}
	if current != nil && current.Data[LastGoodFile] != "" {
		files[LastGoodFile] = current.Data[LastGoodFile]
	}
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        ConfigMapName(cs.Name),
			Namespace:   cs.Namespace,
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "sidecart", "app.kubernetes.io/instance": cs.Name},
			Annotations: map[string]string{v1alpha1.GenerationAnnotation: strconv.FormatInt(generation, 10)},
		},
		Data: files,
	}, nil
}

// WithLastGood returns current with its configuration marked as the last good one, once sidecars have accepted it. The
// last good configuration stays in the ConfigMap when another takes its place. It returns nil if current is marked
// already. Current is not changed.
func WithLastGood(current *corev1.ConfigMap) *corev1.ConfigMap {
	data := current.Data[ConfigFile]
	if data == "" || current.Data[LastGoodFile] == data {
		return nil
	}
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: current.Name, Namespace: current.Namespace, ResourceVersion: current.ResourceVersion,
			Labels: maps.Clone(current.Labels), Annotations: maps.Clone(current.Annotations),
		},
		Data: map[string]string{ConfigFile: data, LastGoodFile: data},
	}
}

// ConfigGeneration returns the generation of the configuration that a ConfigMap holds or that a pod was stamped with.
// It returns 0 if the object is nil or has none.
func ConfigGeneration(o metav1.Object) int64 {
	if o == nil || o == (*corev1.ConfigMap)(nil) || o == (*corev1.Pod)(nil) {
		return 0
	}
	n, err := strconv.ParseInt(o.GetAnnotations()[v1alpha1.GenerationAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// Check says why cs gives its sidecars no configuration; see [ConfigMap]. If carts move, it looks at both places.
func Check(cs *v1alpha1.CartStorage) error {
	whole := *cs
	whole.Status.Move = nil
	_, err := marshal(&whole, v1alpha1.LockingStatus{}, 0)
	return err
}

// marshal returns the file, after the sidecars' own loader has accepted it.
func marshal(cs *v1alpha1.CartStorage, locking v1alpha1.LockingStatus, generation int64) (string, error) {
	c := Config(cs, locking, generation)
	data, err := config.Marshal(c)
	if err != nil {
		return "", err
	}
	if _, err = config.Load(data); err == nil {
		err = notBuilt(cs, c).Err()
	}
	if err != nil {
		return "", fmt.Errorf("CartStorage %s/%s gives no valid configuration: %w", cs.Namespace, cs.Name, err)
	}
	return string(data), nil
}

// notBuilt reports what cs asks for and this version does not have. It looks at cs, since a URL in a Secret does not
// show the dialect.
func notBuilt(cs *v1alpha1.CartStorage, c *config.Config) config.Problems {
	p := dialectNotBuilt("backend", &cs.Spec.Backend)
	if m := cs.Spec.MoveFrom; m != nil {
		p = append(p, dialectNotBuilt("moveFrom.backend", &m.Backend)...)
	}
	if k := cs.Spec.Critical(); k != nil {
		p = append(p, dialectNotBuilt("criticalBackend", &v1alpha1.Backend{Type: k.Type, Database: k.Database})...)
	}
	if len(p) > 0 {
		return p
	}
	return config.NotBuilt(c)
}

func dialectNotBuilt(path string, b *v1alpha1.Backend) config.Problems {
	if d := b.Database; b.Type == v1alpha1.BackendDatabase && d != nil && !config.IsBuilt(config.BackendDatabase, string(d.Dialect)) {
		return config.Problems{{Path: path + ".database.dialect", Message: string(d.Dialect) + " is not built into this version; available are " + config.BuiltNames()}}
	}
	return nil
}
