package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

const (
	// certificateCheck is how often the certificate is checked without an event.
	certificateCheck = time.Minute
	// bundleSpread is how long API servers have to learn of a new authority before a certificate of it is shown.
	bundleSpread = 10 * time.Second
)

// Certificates keeps the webhook's certificate in a Secret, its authority in the configurations of the webhooks, and
// shows it to the API server. Every replica does so, leader or not. The first to write wins, and the others take over
// what it wrote.
//
// A new certificate is shown only after its authority has been written where API servers look, beside the authority
// before. So no call fails while it is renewed.
type Certificates struct {
	client  client.Client // reads the webhook's configuration from the cache
	live    client.Reader // reads the Secret from the API server
	secret  types.NamespacedName
	webhook string
	hosts   []string
	now     func() time.Time

	mu        sync.RWMutex
	shown     *tls.Certificate
	next      *tls.Certificate // written, but not shown yet
	writtenAt time.Time        // since when next is known to be written
}

// GetCertificate is for [tls.Config].
func (c *Certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.shown == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return c.shown, nil
}

// Ready is for the readiness probe: the API server can call the webhook.
func (c *Certificates) Ready(*http.Request) error {
	_, err := c.GetCertificate(nil)
	return err
}

func (c *Certificates) setup(mgr ctrl.Manager, o controller.Options) error {
	everywhere := false
	o.NeedLeaderElection = &everywhere
	return ctrl.NewControllerManagedBy(mgr).
		Named("certificates").
		For(&admissionv1.MutatingWebhookConfiguration{}).
		Watches(&admissionv1.ValidatingWebhookConfiguration{}, &handler.EnqueueRequestForObject{}).
		WithOptions(o).
		Complete(c)
}

// Reconcile looks at the certificate once.
func (c *Certificates) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	data, pair, err := c.current(ctx)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: askSoonest}, nil // another replica was faster
	} else if err != nil {
		return ctrl.Result{}, err
	}
	written, err := c.publish(ctx, data[caKey])
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: askSoonest}, nil
	} else if err != nil || !written {
		return ctrl.Result{RequeueAfter: certificateCheck}, err
	}
	return ctrl.Result{RequeueAfter: c.show(pair)}, nil
}

// current returns the certificate in the Secret. If it cannot be used, or ends soon, it is made anew.
func (c *Certificates) current(ctx context.Context) (map[string][]byte, *tls.Certificate, error) {
	now := c.now()
	secret := &corev1.Secret{}
	err := c.live.Get(ctx, c.secret, secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, nil, fmt.Errorf("read Secret %s: %w", c.secret, err)
	}
	pair, renew, err := load(secret.Data, c.hosts, now)
	if err == nil && now.Before(renew) {
		return secret.Data, pair, nil
	}
	ctrl.LoggerFrom(ctx).Info("webhook certificate is made anew", "secret", c.secret.String(), "because", reasonToRenew(missing, err))
	data, err := issue(c.hosts, secret.Data[caKey], now)
	if err != nil {
		return nil, nil, err
	}
	if pair, _, err = load(data, c.hosts, now); err != nil {
		return nil, nil, err
	}
	secret.Data = data
	if missing {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: c.secret.Namespace, Name: c.secret.Name, Labels: map[string]string{managedBy: "sidecart"}}
		secret.Type = corev1.SecretTypeTLS
		return data, pair, c.client.Create(ctx, secret, client.FieldOwner(FieldOwner))
	}
	return data, pair, c.client.Update(ctx, secret, client.FieldOwner(FieldOwner)) // with the version that was read
}

func reasonToRenew(missing bool, err error) string {
	switch {
	case missing:
		return "there is none"
	case err != nil:
		return err.Error()
	}
	return "two thirds of its life are over"
}

// publish writes the authorities into the configurations of the webhooks. It reports false if there is none for pods;
// its creation starts another round. The one for reviews may be missing: changes are then not reviewed.
func (c *Certificates) publish(ctx context.Context, bundle []byte) (bool, error) {
	reviews := &admissionv1.ValidatingWebhookConfiguration{}
	err := c.publishIn(ctx, reviews, bundle, func() (all []*admissionv1.WebhookClientConfig) {
		for i := range reviews.Webhooks {
			all = append(all, &reviews.Webhooks[i].ClientConfig)
		}
		return all
	})
	if client.IgnoreNotFound(err) != nil {
		return false, err
	}
	pods := &admissionv1.MutatingWebhookConfiguration{}
	err = c.publishIn(ctx, pods, bundle, func() (all []*admissionv1.WebhookClientConfig) {
		for i := range pods.Webhooks {
			all = append(all, &pods.Webhooks[i].ClientConfig)
		}
		return all
	})
	return err == nil, client.IgnoreNotFound(err)
}

// publishIn writes them into one object, if they are not there.
func (c *Certificates) publishIn(ctx context.Context, o client.Object, bundle []byte, configs func() []*admissionv1.WebhookClientConfig) error {
	if err := c.client.Get(ctx, client.ObjectKey{Name: c.webhook}, o); err != nil {
		return err
	}
	before := o.DeepCopyObject().(client.Object)
	stale := false
	for _, config := range configs() {
		if !bytes.Equal(config.CABundle, bundle) {
			config.CABundle, stale = bundle, true
		}
	}
	if !stale {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return c.client.Patch(ctx, o, patch, client.FieldOwner(FieldOwner))
}

// show uses pair once API servers have had time to learn its authority, and returns when to look again.
func (c *Certificates) show(pair *tls.Certificate) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if sameCertificate(c.shown, pair) {
		return certificateCheck
	}
	if !sameCertificate(c.next, pair) {
		c.next, c.writtenAt = pair, now
	}
	usable := c.shown != nil && now.Before(c.shown.Leaf.NotAfter)
	if wait := c.writtenAt.Add(bundleSpread).Sub(now); usable && wait > 0 {
		return wait
	}
	c.shown, c.next = pair, nil
	return certificateCheck
}
