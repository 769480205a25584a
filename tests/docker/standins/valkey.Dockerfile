# For valkey/valkey.
FROM guardline-standin/debian
COPY valkey-server /usr/local/bin/valkey-server
RUN mkdir /data && chown 1000:1000 /data
VOLUME /data
WORKDIR /data
USER 1000:1000
CMD ["valkey-server"]
