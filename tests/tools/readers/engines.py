"""The one Spark session of a check: in UTC, on this machine alone, and quiet."""

import os
from functools import cache


@cache
def session():
    from pyspark.sql import SparkSession

    # Without it Spark looks the machine's name up, which a machine without a network cannot.
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.driver.bindAddress", "127.0.0.1")
    settings = {"spark.sql.session.timeZone": "UTC", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "1g"}
    for name, value in settings.items():
        spark = spark.config(name, value)
    started = spark.getOrCreate()
    started.sparkContext.setLogLevel("ERROR")
    return started
