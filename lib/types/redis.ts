/** Where Redis is. */
export interface RedisConnection {
  /** `redis://` or `rediss://` (TLS). Fields fill in what it leaves open; a contradiction is NVENT_INVALID. */
  url?: string
  /** Default `127.0.0.1`. */
  host?: string
  /** Default 6379. */
  port?: number
  /** ACL user. Default, and if empty: Redis's default user. */
  username?: string
  /** Never appears in an error or a log. An empty one is none. */
  password?: string
  /** Database number. Default 0. */
  db?: number
  /**
   * Whether to use TLS (default false), or its options: certificates and keys as PEM text or paths. Without `ca` the roots are
   * the system's (or those of SSL_CERT_FILE) and those of NODE_EXTRA_CA_CERTS. An untrusted certificate is not retried.
   */
  tls?: boolean | {
    /** The only roots to trust. */
    ca?: string | string[]
    /** The client's certificate. */
    cert?: string
    /** Its key. */
    key?: string
    /** The name that the server's certificate must have. Default: the host. */
    servername?: string
    /** Verify the server's certificate. Default true. */
    rejectUnauthorized?: boolean
  }
  /** Sentinels, instead of `url`, `host` and `port`. The primary is looked up for each connection. */
  sentinels?: Array<{
    /** Host name or address. */
    host: string
    /** Default 26379. */
    port?: number
  }>
  /** The name of the primary that the sentinels watch. */
  name?: string
  /** The password of the sentinels. */
  sentinelPassword?: string
}
