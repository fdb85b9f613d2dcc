package render

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// ContainerName is the name of the sidecar in a pod.
const ContainerName = "sidecart"

// Environment variables that app containers get.
const (
	HTTPURLVariable    = "SIDECART_HTTP_URL"
	GRPCTargetVariable = "SIDECART_GRPC_TARGET"
)

// Volumes that are added to a pod.
const (
	configVolume  = "sidecart-config"
	dataVolume    = "sidecart-data"
	noTokenVolume = "sidecart-no-token"
)

// evictAnnotation says to the cluster autoscaler whether it may evict a pod to remove its node, and localAnnotation
// which volumes of a pod on its node it may throw away.
const (
	evictAnnotation = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	localAnnotation = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
)

// tokenDirectory is where Kubernetes mounts the token of the service account.
const tokenDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"

// PodOptions are what a pod's sidecar depends on besides the CartStorage.
type PodOptions struct {
	// Image is the image of sidecars whose CartStorage names none.
	Image string
	// Images are those that the CartStorage may name; see [Images].
	Images Images
	// Minima are the least that a container of the namespace must ask for; see [Minima].
	Minima corev1.ResourceList
	// Generation is that of the present configuration, see [ConfigMap].
	Generation int64
}

// Pod returns pod with the sidecar of cs. The given pod is not changed.
//
// A pod that already has our sidecar keeps it, with the changes that other webhooks made. Containers that were added
// later are given the environment variables, and with order Last the sidecar moves behind them. So Pod may be applied
// again to its own result, and changes nothing.
//
// The error lists every obstacle, and says what to write instead.
func Pod(pod *corev1.Pod, cs *v1alpha1.CartStorage, o PodOptions) (*corev1.Pod, error) {
	pod = pod.DeepCopy()
	if !Injected(pod) {
		image := cmp.Or(cs.Spec.Sidecar.Image, o.Image)
		if err := errors.Join(append(obstacles(pod, cs, image), o.Images.Check(cs.Spec.Sidecar.Image), belowMinima(cs, o.Minima))...); err != nil {
			return nil, err
		}
		inject(pod, cs, image, o.Generation)
		raise(&pod.Spec.InitContainers[slices.IndexFunc(pod.Spec.InitContainers, ours)].Resources, o.Minima)
	}
	if cs.Spec.Injection.Order == v1alpha1.InjectLast {
		moveLast(pod.Spec.InitContainers)
	}
	p := injectedPorts(pod, cs)
	environment(pod.Spec.InitContainers, p)
	environment(pod.Spec.Containers, p)
	return pod, nil
}

// Injected reports whether the pod has a sidecar of ours.
func Injected(pod *corev1.Pod) bool {
	return pod.Annotations[v1alpha1.InjectedAnnotation] != "" && slices.ContainsFunc(pod.Spec.InitContainers, ours)
}

func ours(c corev1.Container) bool { return c.Name == ContainerName }

// moveLast moves the sidecar behind the others, which keep their order.
func moveLast(containers []corev1.Container) {
	if i := slices.IndexFunc(containers, ours); i >= 0 {
		c := containers[i]
		copy(containers[i:], containers[i+1:])
		containers[len(containers)-1] = c
	}
}

// obstacles returns the reasons why the pod cannot be given a sidecar.
func obstacles(pod *corev1.Pod, cs *v1alpha1.CartStorage, image string) (errs []error) {
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if image == "" {
		refuse("no image for the sidecar: set spec.sidecar.image of CartStorage %s, or the operator's", cs.Name)
	}
	if pod.Spec.HostNetwork {
		refuse("the pod is on the network of its node, where everybody could reach its carts: remove hostNetwork, or the label %s", v1alpha1.InjectLabel)
	}
	if os := pod.Spec.OS; os != nil && os.Name == corev1.Windows {
		refuse("the pod runs on Windows and the sidecar on Linux: remove the label %s", v1alpha1.InjectLabel)
	}
	p := ports(cs)
	settings := map[int32]string{p.GRPC: "grpc", p.HTTP: "http", p.Admin: "admin"}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if ours(c) {
			refuse("a container of the pod is called %s, as the sidecar would be: give it another name", ContainerName)
		}
		for _, declared := range c.Ports {
			if setting, taken := settings[declared.ContainerPort]; taken && cmp.Or(declared.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP {
				refuse("container %s has port %d, where the sidecar would listen: set spec.sidecar.ports.%s of CartStorage %s to another",
					c.Name, declared.ContainerPort, setting, cs.Name)
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		if slices.Contains([]string{configVolume, dataVolume, noTokenVolume}, v.Name) {
			refuse("a volume of the pod is called %s, as one of the sidecar's would be: give it another name", v.Name)
		}
	}
	return errs
}

func inject(pod *corev1.Pod, cs *v1alpha1.CartStorage, image string, generation int64) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.InjectedAnnotation] = cs.Name
	pod.Annotations[v1alpha1.GenerationAnnotation] = strconv.FormatInt(generation, 10)

	data := podVolume(cs)
	given := len(pod.Spec.Volumes)
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, 0, container(cs, image, data != nil))
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		corev1.Volume{Name: configVolume, VolumeSource: corev1.VolumeSource{Projected: projected(cs)}},
		corev1.Volume{Name: noTokenVolume, VolumeSource: corev1.VolumeSource{Projected: noToken()}},
	)
	if data != nil {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: dataVolume, VolumeSource: *data})
		ownClaim(pod, data)
		keepNode(pod, data)
	}
	pod.Annotations[v1alpha1.InjectedAsAnnotation] = factsOf(pod.Spec.InitContainers[0], pod.Spec.Volumes[given:], cs).note()
}

// noToken holds only the pod's name, which is no secret. An empty folder would have to be an emptyDir: a drain of the
// node refuses to delete one, and the cluster autoscaler keeps a node that has one.
func noToken() *corev1.ProjectedVolumeSource {
	mode := int32(0o444)
	name := corev1.DownwardAPIVolumeFile{Path: "pod", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}
	return &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{name}}},
	}}
}

// keepNode tells autoscalers that the pod's carts are in a folder of its node and would go with the pod, unless the
// pod's owner has said whether it may be evicted. Autoscalers that ignore an emptyDir obey this.
func keepNode(pod *corev1.Pod, data *corev1.VolumeSource) {
	_, evict := pod.Annotations[evictAnnotation]
	_, local := pod.Annotations[localAnnotation]
	if data.EmptyDir != nil && !evict && !local {
		pod.Annotations[evictAnnotation] = "false"
	}
}

// projected returns one volume with configuration and secrets. The kubelet replaces all files of a volume at one
// instant, so a new configuration never meets old secrets.
func projected(cs *v1alpha1.CartStorage) *corev1.ProjectedVolumeSource {
	config := corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: ConfigMapName(cs.Name)},
		Items:                []corev1.KeyToPath{{Key: ConfigFile, Path: ConfigFile}},
	}}
	// The key does not exist until sidecars have accepted a configuration.
	optional := true
	lastGood := corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: ConfigMapName(cs.Name)},
		Items:                []corev1.KeyToPath{{Key: LastGoodFile, Path: LastGoodFile}},
		Optional:             &optional,
	}}
	// The files belong to root, and the sidecar is another user, so others must be able to read them. No other
	// container mounts the volume.
	mode := int32(0o444)
	return &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: append([]corev1.VolumeProjection{config, lastGood}, secrets(cs)...)}
}

// podVolume is the volume for carts that a pod of cs gets, nil for none. It may be that of the backend that carts move
// from; the two backends of a move never both have one.
func podVolume(cs *v1alpha1.CartStorage) *corev1.VolumeSource {
	if own := dataSource(cs); own != nil || cs.Spec.MoveFrom == nil {
		return own
	}
	return dataSource(Former(cs))
}

// dataSource is the volume for backends that keep carts in the pod; nil for the others.
func dataSource(cs *v1alpha1.CartStorage) *corev1.VolumeSource {
	var v *v1alpha1.Volume
	switch b := &cs.Spec.Backend; {
	case b.Type == v1alpha1.BackendFile:
		if b.File != nil {
			v = b.File.Volume
		}
	case b.Type == v1alpha1.BackendDatabase && b.Database != nil && b.Database.Dialect == v1alpha1.SQLite:
		v = b.Database.Volume
	default:
		return nil
	}
	if v == nil {
		v = &v1alpha1.Volume{}
	}
	if v.ClaimName != "" {
		return &corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: v.ClaimName}}
	}
	return &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: v.SizeLimit}}
}

// ownClaim lets the sidecar write to a claim, whose files usually belong to root. If the pod has chosen a group
// already, that serves too.
func ownClaim(pod *corev1.Pod, data *corev1.VolumeSource) {
	if data.PersistentVolumeClaim == nil {
		return
	}
	if pod.Spec.SecurityContext == nil {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	if s := pod.Spec.SecurityContext; s.FSGroup == nil {
		group, policy := user, corev1.FSGroupChangeOnRootMismatch
		s.FSGroup = &group
		if s.FSGroupChangePolicy == nil {
			s.FSGroupChangePolicy = &policy
		}
	}
}

// environment tells the containers of the app where the sidecar is. Variables that they set themselves stay as they
// are.
func environment(containers []corev1.Container, p v1alpha1.Ports) {
	for i := range containers {
		c := &containers[i]
		if ours(*c) {
			continue
		}
		for _, v := range []corev1.EnvVar{
			{Name: HTTPURLVariable, Value: "http://" + local(p.HTTP)},
			{Name: GRPCTargetVariable, Value: local(p.GRPC)},
		} {
			if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == v.Name }) {
				c.Env = append(c.Env, v)
			}
		}
	}
}

// Missing returns the files that the configuration of cs names and that the sidecar of the pod does not have. They were
// named after the pod was made, so it must be made anew.
func Missing(pod *corev1.Pod, cs *v1alpha1.CartStorage) (paths []string) {
	have := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		if v.Name == configVolume && v.Projected != nil {
			for _, path := range secretPaths(v.Projected.Sources) {
				have[path] = true
			}
		}
	}
	for _, path := range secretPaths(secrets(cs)) {
		if !have[path] {
			paths = append(paths, configDirectory+"/"+path)
		}
	}
	if podVolume(cs) != nil && !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == dataVolume }) {
		paths = append(paths, dataDirectory)
	}
	return paths
}

// MountedVolumes returns the volumes of the pod that [Missing] looks at, reduced to what it needs. A pod's author can
// give these names to volumes of any content, so no more is kept than a sidecar can have.
func MountedVolumes(pod *corev1.Pod) (volumes []corev1.Volume) {
	const mostPaths, longestPath = 64, 1024
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.Name == dataVolume:
			volumes = append(volumes, corev1.Volume{Name: v.Name})
		case v.Name == configVolume && v.Projected != nil:
			var items []corev1.KeyToPath
			for _, path := range secretPaths(v.Projected.Sources) {
				if len(items) < mostPaths && len(path) <= longestPath {
					items = append(items, corev1.KeyToPath{Path: path})
				}
			}
			source := corev1.VolumeProjection{Secret: &corev1.SecretProjection{Items: items}}
			volumes = append(volumes, corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}},
			}})
		}
	}
	return volumes
}

func secretPaths(sources []corev1.VolumeProjection) (paths []string) {
	for _, s := range sources {
		if s.Secret != nil {
			for _, item := range s.Secret.Items {
				paths = append(paths, item.Path)
			}
		}
	}
	return paths
}
