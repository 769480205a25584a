# For apache/kafka: the same variables, the same data folder.
FROM guardline-standin/python
COPY java /opt/java
COPY libs /opt/kafka/libs
COPY kafka.sh /opt/kafka/run.sh
RUN mkdir -p /var/lib/kafka/data && chown -R 1000:1000 /var/lib/kafka
VOLUME /var/lib/kafka/data
USER 1000:1000
ENTRYPOINT ["bash", "/opt/kafka/run.sh"]
