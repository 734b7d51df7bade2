open("sang", "w").close()


def data():
    open("sang", "w").close()


Net = data
