package v1alpha1

// RedisCredentials is a secret in the namespace of the CartStorage.
type RedisCredentials struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
	// The key of the user name. Without it the user is "default".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	UsernameKey string `json:"usernameKey,omitempty"`
	// The key of the password.
	// +optional
	// +kubebuilder:default=password
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	PasswordKey string `json:"passwordKey,omitempty"`
}

// DatabaseCredentials is a secret in the namespace of the CartStorage, laid out like one of type
// kubernetes.io/basic-auth.
type DatabaseCredentials struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
	// The key of the user name.
	// +optional
	// +kubebuilder:default=username
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	UsernameKey string `json:"usernameKey,omitempty"`
	// The key of the password.
	// +optional
	// +kubebuilder:default=password
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	PasswordKey string `json:"passwordKey,omitempty"`
}

// AWSCredentials is a secret in the namespace of the CartStorage.
type AWSCredentials struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
	// The key of the access key's id.
	// +optional
	// +kubebuilder:default=AWS_ACCESS_KEY_ID
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	AccessKeyIDKey string `json:"accessKeyIdKey,omitempty"`
	// The key of the secret access key.
	// +optional
	// +kubebuilder:default=AWS_SECRET_ACCESS_KEY
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	SecretAccessKeyKey string `json:"secretAccessKeyKey,omitempty"`
}

// URLSecretRef is a secret in the namespace of the CartStorage.
type URLSecretRef struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
	// The key of the URL.
	// +optional
	// +kubebuilder:default=url
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	Key string `json:"key,omitempty"`
}

// TLS says how to speak TLS with a backend.
//
// +kubebuilder:validation:XValidation:rule="!has(self.insecureSkipVerify) || !self.insecureSkipVerify || !has(self.caSecretRef)",fieldPath=".insecureSkipVerify",message="insecureSkipVerify makes caSecretRef void: remove one of them"
type TLS struct {
	// Speak TLS. Any other setting of this section turns it on as well; an empty section does not.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
	// The secret with the certificate of the authority that signed the server's. Without it the usual public
	// authorities are trusted.
	// +optional
	CASecretRef *CASecretRef `json:"caSecretRef,omitempty"`
	// The secret of type kubernetes.io/tls with the certificate that the sidecar shows.
	// +optional
	CertificateSecretRef *CertificateSecretRef `json:"certificateSecretRef,omitempty"`
	// The name in the server's certificate, where it is not the host of the address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
	// Accept any certificate. Anybody between the two can then read and change carts.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// On reports whether TLS is spoken; nil is off.
func (t *TLS) On() bool { return t != nil && *t != TLS{} }

// DatabaseTLS says how to speak TLS with a database.
//
// +kubebuilder:validation:XValidation:rule="!has(self.insecureSkipVerify) || !self.insecureSkipVerify || !has(self.caSecretRef)",fieldPath=".insecureSkipVerify",message="insecureSkipVerify makes caSecretRef void: remove one of them"
type DatabaseTLS struct {
	// Speak TLS. Any other setting of this section turns it on as well; an empty section does not.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
	// The secret with the certificate of the authority that signed the server's. Without it the usual public
	// authorities are trusted.
	// +optional
	CASecretRef *CASecretRef `json:"caSecretRef,omitempty"`
	// The secret of type kubernetes.io/tls with the certificate that the sidecar shows.
	// +optional
	CertificateSecretRef *CertificateSecretRef `json:"certificateSecretRef,omitempty"`
	// Accept any certificate. Anybody between the two can then read and change carts.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// On reports whether TLS is spoken; nil is off.
func (t *DatabaseTLS) On() bool { return t != nil && *t != DatabaseTLS{} }

// CASecretRef is a secret in the namespace of the CartStorage.
type CASecretRef struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
	// The key of the certificate, as PEM.
	// +optional
	// +kubebuilder:default="ca.crt"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$') && self != '.' && !self.startsWith('..')",message="must be a key of the Secret: letters, digits and _ . -, for example password"
	Key string `json:"key,omitempty"`
}

// CertificateSecretRef is a secret of type kubernetes.io/tls in the namespace of the CartStorage.
type CertificateSecretRef struct {
	// The name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"
	Name string `json:"name"`
}
